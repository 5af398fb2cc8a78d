"""Every command that is a client of a server, with a server or a key that refuses it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_support import RunningApp, register_models, running_app
from command_line import Ended, commands, typed
from key_support import new_key
from threaded_server import LocalServer, QuietHandler, running

from ops.local.ports import free_port
from shared.protocol.access.rights import Scope
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

pytestmark = pytest.mark.slow

EXAMPLES = {
    **dict.fromkeys(("NAME", "MODEL"), "extract"),
    **dict.fromkeys(("PATH", "FOLDER"), "ADAPTER"),
    "ID": "0" * 32,
    "CASES": "CASES",
    "FILE": "REQUESTS",
}
"""Values of required parameters, by their names in the usage. Capitals are replaced by a path."""
NOT_ABOUT_SERVERS = {"health"}
"""Commands with a URL that check processes of this machine."""
CASE = {"messages": [{"role": "user", "content": "hi"}], "expected": "hi"}
REQUEST = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}


def clients() -> Iterator[tuple[str, ...]]:
    """Yield the words of each command that takes the URL of a server."""
    for words, command in commands():
        flags = {name for param in command.params for name in param.opts}
        if "--url" in flags and words[1] not in NOT_ABOUT_SERVERS:
            yield words[1:]


CLIENTS = sorted(set(clients()) - {("jobs",), ("keys",)})
"""The groups `jobs` and `keys` do nothing themselves."""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Paths that stand for the names in `EXAMPLES`."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8, "peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    paths = {"ADAPTER": folder, "CASES": tmp_path / "cases", "REQUESTS": tmp_path / "requests"}
    paths["CASES"].write_text(json.dumps(CASE))
    paths["REQUESTS"].write_text(json.dumps(REQUEST))
    return {name: str(path) for name, path in paths.items()}


def complete(words: tuple[str, ...], files: dict[str, str]) -> list[str]:
    """Return a command with examples of its arguments and of its required options."""
    (command,) = (each for found, each in commands() if found == ("lorikeet", *words))
    line = [*words]
    for param in command.params:
        if param.param_type_name == "argument":
            line.append(example(param, files))
        elif param.required:
            line += [param.opts[0], example(param, files)]
    return [*line, "--requests=1"] if words == ("bench",) else line


def example(param: Any, files: dict[str, str]) -> str:
    value = EXAMPLES[param.metavar]
    return files.get(value, value)


async def run(line: list[str], url: str, *more: str) -> Ended:
    return await asyncio.to_thread(typed, *line, "--url", url, *more, stdin="hi\n")


def check(ended: Ended, line: list[str], *parts: str) -> None:
    message = ended.err.rpartition("lorikeet: ")[2]
    assert ended.status in (1, 2), (line, ended)
    assert "\nlorikeet: " in f"\n{ended.err}", (line, ended)
    assert any(part in message for part in parts), (line, message)


def test_the_walk_finds_the_commands() -> None:
    assert {
        ("status",),
        ("queue",),
        ("adapters", "pin"),
        ("jobs", "retry"),
        ("keys", "open"),
    } < set(CLIENTS)
    assert len(CLIENTS) > 28


@pytest.fixture
async def guarded(
    settings: ApiSettings, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningApp]:
    await register_models(Registry(redis, keys))
    monkeypatch.delenv("LORIKEET_API_KEYS", raising=False)
    async with running_app(settings.model_copy(update={"require_keys": True})) as app:
        yield app


async def test_without_a_key_every_command_says_how_to_give_one(
    guarded: RunningApp, files: dict[str, str]
) -> None:
    for words in CLIENTS:
        line = complete(words, files)
        check(await run(line, guarded.url), line, "an API key is needed")
        unknown = await run(line, guarded.url, "--api-key", "lk-unknown-and-long-enough")
        check(unknown, line, "unknown API key")


async def test_a_key_of_too_few_rights_is_refused_with_the_missing_right(
    guarded: RunningApp, files: dict[str, str], store: KeyStore
) -> None:
    secret, _ = await new_key(store, Scope.METRICS)
    for words in CLIENTS:
        line = complete(words, files)
        ended = await run(line, guarded.url, "--api-key", secret)
        check(ended, line, "this API key may not use this URL; it needs a key with the scope")


class OtherServer(LocalServer):
    """Answers every request with the same status and content."""

    def __init__(self, status: int, content: Any) -> None:
        super().__init__(OtherHandler)
        self.answer = status, content


class OtherHandler(QuietHandler):
    server: OtherServer

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if self.raw_requestline and self.parse_request():
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.reply(*self.server.answer)
        self.close_connection = True


@pytest.mark.parametrize(
    ("status", "content"), [(200, b"<html>Welcome!</html>"), (200, {}), (404, {"detail": "none"})]
)
async def test_another_server_at_the_url_is_noticed(
    files: dict[str, str], status: int, content: Any
) -> None:
    with running(OtherServer(status, content)) as server:
        for words in CLIENTS:
            line = complete(words, files)
            parts = (server.url, "is the URL right?", "requests failed")
            check(await run(line, server.url), line, *parts)


@pytest.mark.parametrize("url", ["no-port", "http://127.0.0.1:PORT", "http://nowhere.invalid"])
async def test_a_dead_server_or_a_wrong_url_is_named(files: dict[str, str], url: str) -> None:
    url = url.replace("PORT", str(free_port()))
    for words in CLIENTS:
        line = complete(words, files)
        check(await run(line, url), line, f"no answer from {url}", f"{url}", "isn't a URL")
