"""Turns of batches, against Redis, a folder, and an app that the tests script."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from batch_records import make_batch
from fastapi import FastAPI, Request, Response

from api.files.file_store import FileStore
from api.files.own_files import content_name
from ops.control.batches import sending
from ops.control.batches.parts import Parts, Window
from ops.control.batches.turns import BatchTurns
from shared.protocol.access.rights import Access
from shared.store.batches.batches import Batches, Turn
from shared.store.batches.files import StoredFiles, new_file_id
from shared.store.batches.records import Batch, BatchStatus
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

PATH = "/v1/completions"
ANSWER = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
Reply = Callable[[dict[str, Any]], Awaitable[Response]]


class NoArq:
    """Records the arq jobs of turns, which the tests run."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []

    async def enqueue_job(self, name: str, batch: str, number: int, **_: Any) -> None:
        assert name == "run_batch"
        self.turns.append(Turn(batch, number))  # type: ignore[arg-type]


class Control:
    """The part of a control process that runs batches."""

    def __init__(self, redis: Redis, keys: Keys, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        """Number of attempts by custom id."""
        self.arq, self.store = NoArq(), FileStore(str(folder))
        self.batches, self.redis, self.keys = Batches(redis, keys), redis, keys
        parts = Parts(
            app=FastAPI(),
            answering={PATH: self._answer},
            store=self.store,
            files=StoredFiles(redis, keys),
            batches=self.batches,
            queue=Queue(redis, keys),
            window=Window(PoolViews(redis, keys)),
            checks=asyncio.Lock(),
            keep_s=1000,
            announces=False,
            max_line_bytes=10_000,
        )
        self.turns = BatchTurns(parts, self.arq)  # type: ignore[arg-type]
        self.reply: Reply = self.succeed

    async def add(self, *rows: dict[str, Any], window_s: int = 1000) -> Batch:
        """Create a batch whose requests have the given fields in their bodies."""
        content = b"\n".join(
            orjson.dumps(
                {
                    "custom_id": str(number),
                    "method": "POST",
                    "url": PATH,
                    "body": {"model": "a", "number": number, **row},
                }
            )
            for number, row in enumerate(rows)
        )
        file_id = new_file_id()
        await self.store.write(content_name(file_id), pieces(content))
        expires_s = int(time.time()) + window_s
        batch = make_batch(endpoint=PATH, input_file=file_id, expires_s=expires_s)
        await self.batches.add(batch, keep_s=1000, max_tenant=99)
        return batch

    async def turn(self, batch: Batch | None = None) -> None:
        """Give and run one turn; that of `batch` is due now."""
        if batch:
            await self.redis.zadd(self.keys.turns_of("red"), {batch.id: 0})
        await self.turns.start()
        await self.run(self.arq.turns.pop(0))

    async def run(self, turn: Turn) -> None:
        await self.turns.function().coroutine({}, turn.batch, turn.number)

    async def read(self, batch: Batch) -> Batch:
        found = await self.batches.get(batch.id)
        assert found
        return found

    async def rows(self, file_id: str | None) -> dict[str, Any]:
        """Return the responses in an output file by custom id."""
        assert file_id
        content = b"".join([piece async for piece in self.store.read(f"files/{file_id}")])
        rows = [orjson.loads(line) for line in content.splitlines()]
        return {row["custom_id"]: row["response"] for row in rows}

    def answer_only(
        self, is_answered: Callable[[dict[str, Any]], bool], otherwise: Callable[[], Response]
    ) -> None:
        """Let requests succeed whose bodies fulfil the condition, and others get another reply."""

        async def reply(body: dict[str, Any]) -> Response:
            return await self.succeed(body) if is_answered(body) else otherwise()

        self.reply = reply

    async def _answer(self, _: Request, access: Access, body: dict[str, Any]) -> Response:
        self.asked[str(body["number"])] += 1
        return await self.reply(body)

    async def succeed(self, _: dict[str, Any]) -> Response:
        return Response(ANSWER, media_type="application/json")


def away() -> Response:
    """The reply of a pool that can't answer yet."""
    return Response(b"{}", 503, headers={"Retry-After": "2"})


def is_first_two(body: dict[str, Any]) -> bool:
    return bool(body["number"] < 2)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture
def control(redis: Redis, keys: Keys, tmp_path: Path) -> Control:
    return Control(redis, keys, tmp_path)


async def test_a_batch_is_answered_in_one_turn(control: Control) -> None:
    batch = await control.add({}, {}, {})
    await control.turn()
    found = await control.read(batch)
    assert (found.status, found.num_completed, found.error_file) == ("completed", 3, None)
    rows = await control.rows(found.output_file)
    assert {row["status_code"] for row in rows.values()} == {200}
    assert (len(rows), found.usage.prompt_tokens) == (3, 9)
    assert control.arq.turns == []


@pytest.mark.parametrize(
    "reply",
    [
        lambda: (_ for _ in ()).throw(RecursionError("too deep")),
        lambda: Response(b"no JSON", 500),
        lambda: Response(b'{"usage": {"prompt_tokens": "many"}}'),
        lambda: Response(b"[1]"),
    ],
    ids=["an exception", "no JSON", "a bad usage", "no object"],
)
async def test_any_failure_of_a_line_is_its_result(
    control: Control, reply: Callable[[], Response]
) -> None:
    control.answer_only(lambda body: body["number"] != 1, reply)
    batch = await control.add({}, {}, {})
    await control.turn()
    found = await control.read(batch)
    assert (found.status, found.num_completed, found.num_failed) == ("completed", 2, 1)
    failed = await control.rows(found.error_file)
    assert failed["1"]["status_code"] == 500
    assert failed["1"]["body"]["error"]["code"] == "internal_error"


async def test_a_limit_ends_the_turn_and_holds_nothing(control: Control) -> None:
    control.answer_only(
        lambda _: sum(control.asked.values()) == 1,
        lambda: Response(b"{}", 429, headers={"Retry-After": "60"}),
    )
    slow = await control.add(*[{}] * 20)
    started_s = time.monotonic()
    await control.turn()
    assert time.monotonic() - started_s < 30
    assert (await control.read(slow)).num_completed == 1
    assert sum(control.asked.values()) <= 5, "only a few requests find out about the limit"
    assert await control.redis.exists(control.keys.turning) == 0
    due_ms = await control.redis.zscore(control.keys.turns_of("red"), slow.id)
    assert due_ms
    assert 55 <= due_ms / 1000 - time.time() <= 92
    control.reply = control.succeed
    await control.turn(slow)
    assert (await control.read(slow)).status is BatchStatus.COMPLETED


async def test_a_model_that_is_away_does_not_stop_the_others(control: Control) -> None:
    control.answer_only(lambda body: body["model"] != "away", away)
    batch = await control.add(*[{"model": "away"}] * 8, *[{}] * 8)
    await control.turn()
    assert (await control.read(batch)).num_completed == 8
    control.reply = control.succeed
    await control.turn(batch)
    found = await control.read(batch)
    assert (found.status, found.num_completed, found.num_failed) == ("completed", 16, 0)


async def test_requests_that_run_at_the_end_of_a_turn_are_followed_by_the_next(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "TURN_S", 0.3)
    release = asyncio.Event()

    async def answer(body: dict[str, Any]) -> Response:
        if body["number"] == 0:
            await release.wait()
        return Response(ANSWER)

    control.reply = answer
    batch = await control.add({}, {}, {})
    await control.turn()
    found = await control.read(batch)
    assert (found.status, found.num_completed) == ("in_progress", 2)
    release.set()
    await control.run(control.arq.turns.pop(0))
    assert (await control.read(batch)).status is BatchStatus.COMPLETED
    assert control.asked == {"0": 2, "1": 1, "2": 1}


async def test_a_batch_that_fails_three_times_ends_with_the_reason_and_its_results(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "TURN_S", 0.3)

    async def answer(body: dict[str, Any]) -> Response:
        if body["number"] == 0:
            await asyncio.Event().wait()
        return Response(ANSWER)

    control.reply = answer
    batch = await control.add({}, {}, {})
    await control.turn()
    await control.redis.delete(control.keys.batch_done(batch.id))
    await control.redis.lpush(control.keys.batch_done(batch.id), "x")  # type: ignore[misc]
    control.arq.turns.clear()
    await control.redis.zadd(control.keys.turning, {batch.id: 0})
    await control.redis.delete(control.keys.batch_lease(batch.id))
    for _ in range(4):
        await control.turn(batch)
    found = await control.read(batch)
    (error,) = found.errors
    assert (found.status, error.code) == ("failed", "batch_run_failed")
    assert "3 times" in error.message
    assert "WRONGTYPE" in error.message
    assert set(await control.rows(found.output_file)) == {"1", "2"}


async def test_a_batch_that_ends_the_process_three_times_is_given_up(control: Control) -> None:
    batch = await control.add({})
    for _ in range(3):
        turn = await control.batches.take_turn()
        assert turn
        await control.batches.begin(turn)
        await control.redis.delete(control.keys.batch_lease(batch.id))
        await control.redis.zadd(control.keys.turning, {batch.id: 0})
    await control.turn()
    found = await control.read(batch)
    assert (found.status, [error.code for error in found.errors]) == ("failed", ["batch_run_died"])
    assert control.asked == {}


async def test_a_batch_whose_input_is_bad_or_gone_names_the_reason(control: Control) -> None:
    batches = {"unsupported_field": await control.add({"stream": True})}
    batches["file_not_found"] = gone = await control.add({})
    await control.store.delete(content_name(gone.input_file))
    for _ in batches:
        await control.turn()
    for code, batch in batches.items():
        found = await control.read(batch)
        assert (found.status, [error.code for error in found.errors]) == ("failed", [code])
    assert control.asked == {}


async def test_an_expired_batch_ends_before_its_file_is_read(control: Control) -> None:
    batch = await control.add({}, window_s=-1)
    await control.store.delete(content_name(batch.input_file))
    await control.turn()
    found = await control.read(batch)
    assert (found.status, [error.code for error in found.errors]) == ("expired", ["batch_expired"])


async def test_lines_without_a_result_expire_with_their_batch(control: Control) -> None:
    control.answer_only(is_first_two, away)
    batch = await control.add(*[{}] * 5)
    await control.turn()
    key = control.keys.batch(batch.id)
    await control.redis.hset(key, "expires_s", int(time.time()) - 1)  # type: ignore[misc]
    await control.turn(batch)
    found = await control.read(batch)
    assert (found.status, found.num_completed, found.num_failed) == ("expired", 2, 3)
    expired = await control.rows(found.error_file)
    assert {row["body"]["error"]["code"] for row in expired.values()} == {"batch_expired"}


async def test_a_cancelled_batch_sends_no_more_requests(control: Control) -> None:
    control.answer_only(is_first_two, away)
    batch = await control.add(*[{}] * 5)
    await control.turn()
    control.asked.clear()
    await control.batches.cancel(batch.id)
    await control.turn()
    found = await control.read(batch)
    assert (found.status, found.num_completed, found.num_failed) == ("cancelled", 2, 0)
    assert control.asked == {}


async def test_a_store_that_is_away_counts_as_no_failure(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError("the disk is away")

    batch = await control.add({})
    with monkeypatch.context() as patch:
        patch.setattr(control.store._files, "open", fails)
        for _ in range(4):
            await control.turn(batch)
    assert (await control.read(batch)).num_failures == 0
    await control.turn(batch)
    assert (await control.read(batch)).status is BatchStatus.COMPLETED


async def test_the_input_is_checked_once(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    control.answer_only(lambda _: False, away)
    batch = await control.add({}, {})
    await control.turn()
    monkeypatch.delattr("ops.control.batches.input_file.LineCheck")
    control.reply = control.succeed
    await control.turn(batch)
    assert (await control.read(batch)).status is BatchStatus.COMPLETED


async def test_a_lost_turn_changes_nothing(control: Control) -> None:
    batch = await control.add({})
    await control.turns.start()
    turn = control.arq.turns.pop(0)
    await control.run(replace(turn, number=turn.number + 1))
    assert control.asked == {}
    await control.run(turn)
    assert (await control.read(batch)).status is BatchStatus.COMPLETED
