"""Answers of every kind move to another worker while their adapter's name changes its version."""

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from adapter_traffic import CONFIGS, load
from queue_support import eventually
from servers import Server, lorikeet_up, pid_of
from tiny import save_adapter, save_tiny_model
from tool_templates import HERMES

from shared.protocol.ids import JobId, WorkerId
from shared.store.views.pool_views import PoolViews

NAME = "flip"
TURNS = [{"role": "user", "content": "Once upon a time, 你好"}]
LENGTH = 800
PER_KIND = 3
"""Number of answers of each kind in one round, so that each worker probably runs some of them."""
MAX_ROUNDS = 8
PATIENCE_S = 60.0
NUM_WORKERS = 2
pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

LONG_TEXT = {"type": "string", "minLength": 600, "maxLength": 640, "pattern": "^[a-z ]*$"}
SCHEMA = {
    "type": "object",
    "properties": {"text": LONG_TEXT, "number": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["text", "number"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "write", "parameters": SCHEMA}}
FREE: dict[str, Any] = {"max_tokens": LENGTH, "ignore_eos": True, "temperature": 1.0}
BOUND: dict[str, Any] = {"max_tokens": 1200, "temperature": 1.0}
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {**FREE, "temperature": 0},
    "seeded": FREE,
    "penalties": {**FREE, "presence_penalty": 1.1, "frequency_penalty": 0.7,
                  "repetition_penalty": 1.2},
    "stop strings": FREE,  # `with_stop` adds one that the answer contains
    "four choices": {**FREE, "n": 4, "max_tokens": LENGTH // 2},
    "logprobs": {**FREE, "logprobs": True, "top_logprobs": 5},
    "json_schema": {**BOUND, "response_format": {
        "type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
    "tools": {**BOUND, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
}  # fmt: skip


@dataclass
class Answer:
    """One streamed answer, as far as it was received."""

    body: dict[str, Any]
    job: JobId | None = None
    contents: defaultdict[int, str] = field(default_factory=lambda: defaultdict(str))
    arguments: str = ""
    logprobs: list[Any] = field(default_factory=list)
    finishes: dict[int, str] = field(default_factory=dict)
    usage: dict[str, int] | None = None

    @property
    def is_in_progress(self) -> bool:
        return bool(self.arguments or any(self.contents.values())) and not self.finishes

    @property
    def outcome(self) -> tuple[Any, ...]:
        """Everything that the client got, except ids."""
        assert self.usage is not None
        tokens = self.usage["prompt_tokens"], self.usage["completion_tokens"]
        return dict(self.contents), self.arguments, self.logprobs, self.finishes, tokens

    async def follow(self, http: httpx.AsyncClient) -> None:
        body = {**self.body, "stream": True, "stream_options": {"include_usage": True}}
        async with http.stream("POST", "/v1/chat/completions", json=body) as reply:
            assert reply.status_code == 200, await reply.aread()
            self.job = JobId(reply.headers["X-Lorikeet-Job"])
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    self._add(orjson.loads(line.removeprefix("data: ")))

    def _add(self, chunk: dict[str, Any]) -> None:
        assert "error" not in chunk, chunk
        self.usage = chunk["usage"] or self.usage
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            self.contents[index] += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                self.arguments += call["function"]["arguments"]
            self.logprobs += (choice["logprobs"] or {}).get("content", ())
            if choice["finish_reason"]:
                self.finishes[index] = choice["finish_reason"]


def requests_of(kind: str) -> list[dict[str, Any]]:
    fields = {"model": NAME, "messages": TURNS, **KINDS[kind]}
    return [{**fields, "seed": 100 + number} for number in range(PER_KIND)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the two adapters that the name stands for in turn."""
    root = tmp_path_factory.mktemp("versions")
    for name, config in CONFIGS.items():
        save_adapter(root / name, **config)
    return root / "a", root / "b"


@pytest.fixture(scope="module")
def server(
    versions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    save_tiny_model(folder / "tiny", max_position_embeddings=2048)
    (folder / "tiny" / "chat_template.jinja").write_text(HERMES)
    flags = ["--model", str(folder / "tiny"), "--dtype", "float32", "--kv-cache-mb", "64"]
    flags += ["--adapter-root", str(versions[0].parent), "--lease-ms", "1500"]
    with lorikeet_up(folder, *flags, "--max-num-seqs", "24", workers=NUM_WORKERS) as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=server.url, timeout=100, limits=limits) as http:
        yield http


async def test_answers_of_every_kind_are_the_same_after_a_move(
    server: Server, http: httpx.AsyncClient, views: PoolViews, versions: tuple[Path, Path]
) -> None:
    await load(http, NAME, versions[0])
    undisturbed = await undisturbed_answers(http)
    moved: set[str] = set()
    for _ in range(MAX_ROUNDS):
        server.wait_for_workers(NUM_WORKERS)
        await load(http, NAME, versions[0], load_inplace=True)
        for kind, answers in (await round_with_a_kill(http, views, versions, undisturbed)).items():
            for answer, expected in zip(answers, undisturbed[kind], strict=True):
                assert answer.outcome == expected.outcome, kind
            moved |= {kind} if any([await was_moved(a, views) for a in answers]) else set()
        if moved == set(KINDS):
            break
    assert moved == set(KINDS)
    assert server.metric("lorikeet_resume_diverged_total") == 0


async def undisturbed_answers(http: httpx.AsyncClient) -> dict[str, list[Answer]]:
    answers = {kind: [Answer(body) for body in requests_of(kind)] for kind in KINDS}
    await follow_all(http, answers)
    # The stop strings are parts of the answers to the same requests without stop strings.
    answers["stop strings"] = [Answer(with_stop(a)) for a in answers["stop strings"]]
    await asyncio.gather(*(answer.follow(http) for answer in answers["stop strings"]))
    assert all(answer.finishes == {0: "stop"} for answer in answers["stop strings"])
    assert all(answer.finishes == {0: "tool_calls"} for answer in answers["tools"])
    return answers


def with_stop(answer: Answer) -> dict[str, Any]:
    text = answer.contents[0]
    middle = len(text) * 3 // 4
    return {**answer.body, "stop": [text[middle : middle + 4]]}


async def follow_all(http: httpx.AsyncClient, answers: dict[str, list[Answer]]) -> None:
    flat = [answer for group in answers.values() for answer in group]
    await asyncio.gather(*(answer.follow(http) for answer in flat))


async def round_with_a_kill(
    http: httpx.AsyncClient,
    views: PoolViews,
    versions: tuple[Path, Path],
    undisturbed: dict[str, list[Answer]],
) -> dict[str, list[Answer]]:
    """Request all answers again, and kill one of their workers while the name changes."""
    answers = {kind: [Answer(a.body) for a in group] for kind, group in undisturbed.items()}
    flat = [answer for group in answers.values() for answer in group]

    async def busy_worker() -> WorkerId | None:
        if sum(answer.is_in_progress for answer in flat) < len(flat) / 3:
            return None
        workers = [view for view in await views.workers() if view.running]
        return max(workers, key=lambda view: view.running).id if workers else None

    following = asyncio.create_task(follow_all(http, answers))
    await eventually(lambda: all(answer.job for answer in flat), within_s=PATIENCE_S)
    async with flipping(http, versions):
        victim = await eventually(busy_worker, within_s=PATIENCE_S)
        os.kill(pid_of(victim), signal.SIGKILL)
        await following
    return answers


@asynccontextmanager
async def flipping(http: httpx.AsyncClient, versions: tuple[Path, Path]) -> AsyncIterator[None]:
    """Let the name stand for the other version again and again during the block."""
    is_over = False

    async def flip() -> int:
        number = 0
        while not is_over:
            number += 1
            await load(http, NAME, versions[number % 2], load_inplace=True)
        return number

    task = asyncio.create_task(flip())
    yield
    is_over = True
    assert await task >= 2


async def was_moved(answer: Answer, views: PoolViews) -> bool:
    assert answer.job is not None
    view = await views.job(answer.job)
    return view is not None and view.try_ > 1
