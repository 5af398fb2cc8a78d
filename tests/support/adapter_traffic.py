"""Loads adapters at run time, and sends traffic to them."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tiny import save_adapter

from shared.cancel_tasks import cancel_tasks

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
CONFIGS: dict[str, dict[str, Any]] = {
    "a": {"seed": 21, "r": 8, "target_modules": "all-linear"},
    "b": {"seed": 22, "r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]},
}
SHARED = "The same long beginning of all prompts, several blocks of it. "
PROMPTS = [SHARED + end for end in ("One", "Two", "Three", "Four")]
NUM_TOKENS = 16
NUM_CLIENTS = 6


@dataclass
class Folders:
    """Folders of the adapters `a` and `b`, and of copies."""

    root: Path

    @classmethod
    def save(cls, root: Path) -> "Folders":
        for name, config in CONFIGS.items():
            save_adapter(root / name, **config)
        return cls(root)

    def copy(self, source: str, name: str) -> Path:
        """Return the folder `name` after copying the files of `source` into it, in place."""
        target = self.root / name
        target.mkdir(exist_ok=True)
        for file in (self.root / source).iterdir():
            shutil.copyfile(file, target / file.name)
        return target


async def load(http: httpx.AsyncClient, name: str, folder: Path, **more: Any) -> dict[str, Any]:
    reply = await http.post(LOAD, json={"lora_name": name, "lora_path": str(folder), **more})
    assert reply.status_code == 200, reply.text
    loaded = await http.get(f"/v1/adapters/{name}")
    body: dict[str, Any] = loaded.json()
    return body


def files_of(folder: Path) -> tuple[str, bytes]:
    config = (folder / "adapter_config.json").read_text()
    return config, (folder / "adapter_model.safetensors").read_bytes()


async def send(http: httpx.AsyncClient, name: str, folder: Path) -> dict[str, Any]:
    """Send an adapter's files as the body of a request."""
    config, weights = files_of(folder)
    query = {"name": name, "config": config}
    reply = await http.post("/v1/adapters", params=query, content=weights)
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


async def complete(http: httpx.AsyncClient, model: str, prompt: str, **more: Any) -> httpx.Response:
    body = {"model": model, "prompt": prompt, "max_tokens": NUM_TOKENS, "temperature": 0}
    return await http.post("/v1/completions", json={**body, **more})


async def text_of(
    http: httpx.AsyncClient, model: str, prompt: str = PROMPTS[0], **more: Any
) -> str:
    reply = await complete(http, model, prompt, **more)
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["text"]
    return text


@dataclass
class Traffic:
    """Clients that repeatedly send requests to one model, and the answers they received."""

    http: httpx.AsyncClient
    model: str
    answers: list[tuple[str, str, str]] = field(default_factory=list)
    """Digest in the answer's fingerprint, prompt, and text."""
    failures: list[str] = field(default_factory=list)

    async def run(self, number: int) -> None:
        for turn in range(10**6):
            prompt = PROMPTS[(turn + number) % len(PROMPTS)]
            reply = await complete(self.http, self.model, prompt)
            if reply.status_code == 200:
                body = reply.json()
                digest = body["system_fingerprint"].rpartition("_")[2]
                self.answers.append((digest, prompt, body["choices"][0]["text"]))
            else:
                self.failures.append(reply.text)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests during the block, and cancel the remaining ones at its end."""
        tasks = [asyncio.create_task(self.run(number)) for number in range(NUM_CLIENTS)]
        try:
            yield
        finally:
            await cancel_tasks(*tasks)
