"""The simulated pool that the console's tests look at, and jobs for it."""

import asyncio
import os
from typing import Any

import httpx
from servers import Server

BASE = "simulated"
ADAPTERS = ("pirate", "sentiment", "sql", "support")
FLAGS = (
    *("--engine", "simulated", "--simulated-step-ms", "20", "--simulated-answer-tokens", "6000"),
    *("--lease-ms", "1500"),
)
"""A step gives each running job a token, so a job of 500 tokens takes ten seconds.

Unless a request limits its answer, the answer takes two minutes.
"""


def start_jobs(
    server: Server, model: str, count: int, *, num_tokens: int, **fields: Any
) -> list[str]:
    """Start background jobs that produce exactly `num_tokens` tokens each, and return their ids.

    `fields` are further fields of the requests.
    """
    headers = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as http:
        return [_start(http, model, num_tokens, seed, fields) for seed in range(count)]


def get_job(server: Server, job: str) -> dict[str, Any]:
    """Return the state of a job and its answer, if it has one."""
    body: dict[str, Any] = httpx.get(f"{server.url}/v1/jobs/{job}", timeout=60).json()
    return body


def cancel_jobs(server: Server, ids: list[str]) -> None:
    """Cancel jobs, including those that have ended."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for each in ids:
            http.post(f"/v1/jobs/{each}/cancel")


async def output_of(*words: str, **variables: str) -> str:
    """Return what a command prints with these environment variables. It must succeed."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **variables},
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


def _start(
    http: httpx.Client, model: str, num_tokens: int, seed: int, fields: dict[str, Any]
) -> str:
    reply = http.post(
        "/v1/completions",
        json={
            "model": model,
            "prompt": "hello",
            "max_tokens": num_tokens,
            "seed": seed,
            "background": True,
            "ignore_eos": True,
            **fields,
        },
    )
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])
