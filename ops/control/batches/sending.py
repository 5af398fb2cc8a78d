"""Sends requests of a batch during one turn, as many at a time as the turn's window allows."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import orjson
import structlog

from ops.control.batches.answers import INTERNAL, BatchAnswerer, Later, failed_answer
from ops.control.batches.committer import Committer, Ended
from ops.control.batches.input_file import InputFile
from ops.control.batches.lines import Line
from ops.control.batches.pending_lines import PendingLines
from shared.errors import RedisUnavailable
from shared.store.batches.batches import Turn

TURN_S = 10.0
"""Seconds after which a turn ends. The next turn awaits requests that are still running."""

MAX_REASON_CHARS = 300

log = structlog.get_logger()


class Sending:
    """Sends a batch's requests during one turn."""

    def __init__(
        self, turn: Turn, file: InputFile, pending: PendingLines, committer: Committer, window: int
    ) -> None:
        self._turn = turn
        self._file = file
        self._pending = pending
        self._committer = committer
        self._running: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self.window = window
        """Maximum number of unfinished requests. Callers may change it at any time."""

    async def run(self, answerer: BatchAnswerer) -> bool:
        """Send requests until all have ended, none can be sent, or the turn is over.

        Returns:
            Whether requests were still running when the turn ended. Their jobs continue.
        """
        committing = self._start(self._committer.run())
        try:
            async with asyncio.timeout(TURN_S) as timer:
                await self._send_all(answerer, committing)
        except TimeoutError:
            if not timer.expired():
                raise
        finally:
            still_run = self._running - {committing}
            await _cancel(still_run)
            self._committer.stop()
            with suppress(Exception):  # `_failure` has the exception
                await committing
        if self._failure:
            raise self._failure
        return bool(still_run)

    def stop(self) -> None:
        """Send no more requests. Running requests may end."""
        self._pending.take_all()
        self._changed.set()

    async def _send_all(self, answerer: BatchAnswerer, committing: "asyncio.Task[None]") -> None:
        while True:
            self._changed.clear()
            while len(self._running) <= self.window and (line := self._pending.pop(_now())):
                raw = await self._file.read(line)
                self._start(self._answer(answerer, line, raw))
            if self._failure or self._running <= {committing}:
                return
            await self._changed.wait()

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._failure = self._failure or task.exception()
        self._changed.set()

    async def _answer(self, answerer: BatchAnswerer, line: Line, raw: bytes) -> None:
        """Answer one request. An unexpected error becomes the result of the request."""
        custom_id = ""
        try:
            request = orjson.loads(raw)
            custom_id = request["custom_id"]
            answer = await answerer.answer(line.number, request["body"], num_bytes=len(raw))
            if isinstance(answer, Later):
                self._pending.put_back(line, _now(), answer.wait_s, of_all=answer.of_all)
                return
            ended = Ended.of(self._turn, line, custom_id, answer)
        except RedisUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  # a client may cause an error in each line
            reason = f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS]
            log.error(
                "batch_line_failed", batch_id=self._turn.batch, line=line.number, error=reason
            )
            ended = Ended.of(self._turn, line, custom_id, failed_answer(INTERNAL))
        self._pending.succeeded(line.model)
        self._committer.add(ended)


def _now() -> float:
    return time.monotonic()


async def _cancel(tasks: set["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
