"""A worker without an engine, for measuring what a worker's calls cost Redis."""

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from ops.bench.load.prompts import WORDS
from ops.bench.synthetic_pool import LEASE_MS
from shared.protocol.events import Admitted, End, Event, Tokens
from shared.protocol.ids import AdapterVersion, ApiId, WorkerId
from shared.protocol.jobs import ClaimedJob, JobState
from shared.protocol.results import Choice, FinishReason, Result, Usage
from shared.protocol.workers import WorkerInfo
from shared.store.jobs.queue import Queue

VERSIONS = [AdapterVersion(f"a{number}@0123456789ab") for number in range(8)]
"""Versions that every worker holds."""
PROMPT_WORDS = 128
CHECKPOINT_TOKENS = 16
"""Number of tokens after which a worker writes a checkpoint."""


@dataclass(slots=True)
class _Running:
    """A job of a worker, and its tokens so far."""

    claimed: ClaimedJob
    length: int
    """Number of tokens of the complete answer."""
    words: list[str] = field(default_factory=list)
    saved: int = 0
    """Number of tokens in checkpoints."""

    @property
    def is_complete(self) -> bool:
        return len(self.words) == self.length

    def tokens(self, start: int, finish: FinishReason | None) -> Tokens:
        words, claimed = self.words[start:], self.claimed
        return Tokens(
            job=claimed.job.id,
            try_=claimed.try_,
            choice=0,
            index=start,
            ids=_ids(start, words),
            text="".join(words),
            finish=finish,
        )


class DrivenWorker:
    """Claims, publishes and finishes jobs as a worker does, without an engine."""

    def __init__(self, queue: Queue, number: int, tokens_per_job: int, batch: int) -> None:
        self._queue = queue
        self._wid = WorkerId(f"bench:{number}:{number:032x}")
        self._tokens_per_job = tokens_per_job
        self._batch = batch
        self.running: list[_Running] = []

    async def join(self) -> None:
        """Enter the pool."""
        info = WorkerInfo(
            model="bench",
            device="cpu",
            dtype="none",
            version="0",
            max_num_seqs=self._batch,
            kv_tokens=10**9,
        )
        await self._queue.register(self._wid, lease_ms=LEASE_MS, info=info, residents=VERSIONS)

    async def claim(self) -> None:
        """Fill the batch with jobs. The last call of a worker has no room for more."""
        while (room := self._batch - len(self.running)) and await self._claim(room):
            pass
        await self._claim(0)

    async def step(self) -> int:
        """Publish the next token of each job, with the checkpoints that are due.

        Returns the number of tokens.
        """
        events: dict[ApiId, list[Event]] = {}
        checkpoints = []
        growing = [running for running in self.running if not running.is_complete]
        for running in growing:
            index, of_api = len(running.words), events.setdefault(running.claimed.job.reply_to, [])
            running.words.append(_word(running.claimed, index))
            finish = FinishReason.LENGTH if running.is_complete else None
            if index == 0:
                of_api.append(_admitted(running.claimed))
            of_api.append(running.tokens(index, finish))
            if finish or index + 1 - running.saved >= CHECKPOINT_TOKENS:
                checkpoints.append(running.tokens(running.saved, finish))
                running.saved = index + 1
        epochs = {r.claimed.job.id: r.claimed.claim_epoch for r in self.running}
        await self._queue.publish(self._wid, events, checkpoints, claim_epochs=epochs)
        return len(growing)

    async def finish(self) -> int:
        """Finish the jobs that have all tokens, and return their number."""
        complete = [running for running in self.running if running.is_complete]
        self.running = [running for running in self.running if not running.is_complete]
        await asyncio.gather(*map(self._finish, complete))
        return len(complete)

    async def _claim(self, sequences: int) -> bool:
        claim = await self._queue.claim(
            self._wid,
            sequences=sequences,
            tokens=10**6,
            steal_ms=1000,
            max_cold=0,
            residents=VERSIONS,
        )
        lengths = (_length(claimed, self._tokens_per_job) for claimed in claim.jobs)
        self.running += map(_Running, claim.jobs, lengths)
        return bool(claim.jobs)

    async def _finish(self, running: _Running) -> None:
        claimed, words = running.claimed, running.words
        job = claimed.job.id
        usage = Usage(prompt_tokens=PROMPT_WORDS, completion_tokens=len(words))
        choice = Choice(text="".join(words), finish=FinishReason.LENGTH, ids=_ids(0, words))
        end = End(job=job, try_=claimed.try_, state=JobState.DONE, usage=usage)
        result = Result(job=job, state=JobState.DONE, choices=(choice,), usage=usage)
        await self._queue.finish(self._wid, end, result, claim_epoch=claimed.claim_epoch)


def _admitted(claimed: ClaimedJob) -> Admitted:
    return Admitted(job=claimed.job.id, try_=claimed.try_, prompt_tokens=PROMPT_WORDS)


def _length(claimed: ClaimedJob, mean: int) -> int:
    """Return the number of tokens of a job: 1, or from 0.5 to 1.5 times the mean."""
    return 1 if mean == 1 else mean // 2 + zlib.crc32(claimed.job.id.encode()) % mean


def _word(claimed: ClaimedJob, index: int) -> str:
    """Return the text of a token. It looks random, so that it compresses like real text."""
    return f" {WORDS[zlib.crc32(f'{claimed.job.id} {index}'.encode()) % len(WORDS)]}"


def _ids(start: int, words: Sequence[str]) -> tuple[int, ...]:
    """Return token ids with as many digits as those of a real vocabulary."""
    texts = (f"{start + n}{word}".encode() for n, word in enumerate(words))
    return tuple(10_000 + zlib.crc32(text) % 90_000 for text in texts)
