"""Canaries, shadows, pins and evaluation with real processes, as users run them."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from queue_support import eventually
from servers import Server, lorikeet_up, run_lorikeet

from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import prompt_ids

pytestmark = pytest.mark.slow

NAME, NUM_TOKENS = "sql", 24
CLIENTS = 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    flags = ("--engine", "simulated", "--adapters", f"{NAME}={NAME}", "--adapter-root", str(folder))
    with lorikeet_up(folder, "simulated", *flags, "--simulated-step-ms", "4", workers=2) as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest.fixture
def next_source(server: Server) -> str:
    """A source whose weights differ from those of the current version."""
    return str(server.log.parent / uuid.uuid4().hex)


def lorikeet(server: Server, *words: str, status: int = 0) -> str:
    done = run_lorikeet("adapters", "--url", server.url, *words)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def details(server: Server, path: str = "") -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(f"{server.url}/v1/adapters/{NAME}{path}").json()
    return body


async def ask(client: openai.AsyncOpenAI, prompt: str, seed: int, user: str) -> str:
    answer = await client.completions.create(
        model=NAME,
        prompt=prompt,
        seed=seed,
        user=user,
        max_tokens=NUM_TOKENS,
        extra_body={"ignore_eos": True},
    )
    return answer.choices[0].text


def version_that_wrote(text: str, prompt: str, seed: int, versions: list[str]) -> str:
    """Return the version whose answer this is. It must be a whole one."""
    found = [
        version
        for version in versions
        if check(
            text,
            version=version,  # type: ignore[arg-type]
            prompt=prompt_ids(prompt),
            seed=seed,
            choice=0,
            num_tokens=NUM_TOKENS,
        ).violation
        is None
    ]
    assert len(found) == 1, f"no version, or several, wrote {text!r}"
    return found[0]


async def test_a_flip_under_load_loses_nothing(
    client: openai.AsyncOpenAI, server: Server, next_source: str
) -> None:
    before = details(server)["version"]
    lorikeet(server, "canary", NAME, next_source, "--percent", "30")
    candidate = details(server)["candidate"]["version"]
    answers: list[tuple[str, str, int]] = []
    is_over = asyncio.Event()

    async def use(number: int) -> None:
        seed = 0
        while not is_over.is_set():
            prompt = f"client {number} asks {seed}"
            answers.append((await ask(client, prompt, seed, str(number)), prompt, seed))
            seed += 1

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(use(number))
        await eventually(lambda: _reached(answers, 100), within_s=60)
        changes = (("canary", NAME, "--percent", "60"), ("promote", NAME), ("rollback", NAME))
        for change in changes:
            reached = len(answers)
            await asyncio.to_thread(lorikeet, server, *change)
            await eventually(lambda n=reached: _reached(answers, n + 60), within_s=60)
        is_over.set()
    writers = {
        version_that_wrote(text, prompt, seed, [before, candidate])
        for text, prompt, seed in answers
    }
    assert writers == {before, candidate}
    assert details(server)["version"] == before


async def _reached(answers: list[Any], number: int) -> bool:
    return len(answers) >= number


async def test_a_shadow_is_compared_by_the_control_process(
    client: openai.AsyncOpenAI, server: Server, next_source: str
) -> None:
    lorikeet(server, "shadow", NAME, next_source)
    for seed in range(6):
        await ask(client, f"shadowed {seed}", seed, "u")

    async def are_compared() -> bool:
        return bool(details(server, "/candidate")["agreement"]["pairs"] == 6)

    await eventually(are_compared, within_s=30)
    shown = lorikeet(server, "candidate", NAME)
    assert "shadow of 100 % of the requests" in shown
    assert "6 pairs compared: 0 equal, 0 failed" in shown
    assert "for all requests" in lorikeet(server, "drop", NAME)


def test_a_pin_is_set_and_the_changes_of_an_adapter_are_listed(server: Server) -> None:
    assert "stays on 2 workers" in lorikeet(server, "pin", NAME, "--replicas", "2")
    assert details(server)["min_replicas"] == 2
    lorikeet(server, "unpin", NAME)
    assert details(server)["min_replicas"] == 0
    assert "pinned" in lorikeet(server, "log", NAME, "--limit", "3")
