"""Records the results of a batch's requests.

A commit writes results to an object in the file store, then records the object's name in Redis.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ops.control.batches.answers import BatchAnswer
from ops.control.batches.lines import Line
from ops.control.batches.results import ANSWERS, FAILURES, Results
from shared.protocol.ids import JobId
from shared.protocol.results import Usage
from shared.store.batches.batches import MAX_LINES_PER_COMMIT, Batches, CommittedLines, Turn

COMMIT_S = 0.5
"""Seconds between two commits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A request of a batch that has ended, with its result."""

    number: int
    result: bytes
    """Line of the output file that contains the result."""
    usage: Usage | None
    """Tokens of the answer; None if the request failed."""
    job: JobId | None

    @classmethod
    def of(cls, turn: Turn, line: Line, custom_id: str, answer: BatchAnswer) -> "Ended":
        """Create the record of the request in `line` from its answer.

        Raises:
            ValueError, AttributeError: the answer isn't a JSON object, or has no valid usage.
        """
        usage = answer.usage()  # for failed requests too, as this raises if the answer is invalid
        return cls(
            number=line.number,
            result=answer.line(turn.batch, line.number, custom_id),
            usage=usage if answer.is_success else None,
            job=answer.job,
        )


class Committer:
    """Records the results of a batch's ended requests. One commit records many results."""

    def __init__(self, batches: Batches, turn: Turn, results: Results) -> None:
        self._batches = batches
        self._turn = turn
        self._results = results
        self._ended: list[Ended] = []
        self._is_stopped = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether as many results are waiting as one commit can record."""
        return len(self._ended) >= MAX_LINES_PER_COMMIT

    def add(self, ended: Ended) -> None:
        """Add the result of a request to the next commit."""
        self._ended.append(ended)

    async def run(self) -> None:
        """Commit every `COMMIT_S` seconds, and a last time after `stop`.

        Callers must not cancel this method. A cancelled commit may have recorded its results, and
        a second attempt to record the same results would fail.
        """
        while not self._is_stopped.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopped.wait(), COMMIT_S)
            await self.commit()

    def stop(self) -> None:
        """Tell `run` to commit once more and then end. Doesn't wait for it."""
        self._is_stopped.set()

    async def commit(self) -> None:
        """Record the results that were added since the last commit.

        Raises:
            LeaseLost: the turn has ended.
            RedisUnavailable: Redis can't be reached. The results may have been recorded
                nevertheless.
            JobFailed: the file store can't be used.
        """
        while self._ended:
            ended = self._ended[:MAX_LINES_PER_COMMIT]
            await self._commit_some(ended)
            del self._ended[: len(ended)]

    async def _commit_some(self, ended: Sequence[Ended]) -> None:
        answered = [each.usage for each in ended if each.usage]
        failures = [each.result for each in ended if not each.usage]
        answers = [each.result for each in ended if each.usage]
        lines = CommittedLines(
            parts=[
                await self._results.write_part(kind, some)
                for kind, some in ((ANSWERS, answers), (FAILURES, failures))
                if some
            ],
            lines=[(each.number, each.job) for each in ended],
            num_completed=len(answers),
            num_failed=len(failures),
            usage=Usage(
                prompt_tokens=sum(usage.prompt_tokens for usage in answered),
                completion_tokens=sum(usage.completion_tokens for usage in answered),
                cached_tokens=sum(usage.cached_tokens for usage in answered),
                reasoning_tokens=sum(usage.reasoning_tokens for usage in answered),
            ),
        )
        await self._batches.commit(self._turn.batch, self._turn.runner, lines)
