"""Tokens on their way to clients: a reply stream per API process, a checkpoint stream per job."""

import time
from collections.abc import Iterable
from typing import Any

from shared.errors import RedisUnavailable
from shared.protocol.codec import decode_events
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import ApiId, JobId
from shared.protocol.jobs import ClaimedJob
from shared.store.connection import Redis, redis_errors
from shared.store.keys import Keys

BLOCK_MS = 1000
TRIM_MS = 60_000
TTL_MS = 120_000
TEND_EVERY_S = 10.0


class ReplyReader:
    """Follows the reply stream of one API process, from its start."""

    def __init__(self, redis: Redis, keys: Keys, api: ApiId) -> None:
        self._redis = redis
        self._stream = keys.replies(api)
        self._last_id = b"0-0"
        self._tended_s = 0.0

    async def read(self) -> list[Event]:
        """The events since the last call, oldest first; waits up to a second for some.

        Raises:
            RedisUnavailable: Redis is away. The next call goes on where this one stood.
            ProtocolMismatch: another version wrote them; the next call goes on behind them.
        """
        try:
            with redis_errors():
                await self._tend()
                reply = await self._redis.xread({self._stream: self._last_id}, block=BLOCK_MS)
        except RedisUnavailable:
            self._tended_s = 0.0  # it may come back with another stream
            raise
        entries = reply[0][1] if reply else []
        if entries:
            self._last_id = entries[-1][0]
        return [event for _, fields in entries for event in decode_events(fields[b"e"])]

    async def _tend(self) -> None:
        """Keep the stream short, and alive while this process is, even when nothing is written."""
        if time.monotonic() - self._tended_s < TEND_EVERY_S:
            return
        oldest_ms = int(self._last_id.split(b"-")[0]) - TRIM_MS
        pipe = self._redis.pipeline(transaction=False)
        pipe.xtrim(self._stream, minid=max(0, oldest_ms), approximate=True)
        pipe.pexpire(self._stream, TTL_MS)
        pipe.xrevrange(self._stream, count=1)
        *_, newest = await pipe.execute()
        if newest and _order(newest[0][0]) < _order(self._last_id):
            self._last_id = b"0-0"  # the stream began anew, by an earlier clock
        self._tended_s = time.monotonic()


def _order(entry: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in entry.split(b"-"))


async def recover(redis: Redis, keys: Keys, job: ClaimedJob) -> tuple[Tokens, ...]:
    """Everything that earlier tries showed of the job: one Tokens per choice, from index 0.

    Whoever takes a job from a worker copies what was shown into the checkpoints, so they have
    all of it. The new owner must go on behind it: a token that was shown is law.
    """
    return await shown(redis, keys, job.job.id)


async def shown(redis: Redis, keys: Keys, job_id: JobId) -> tuple[Tokens, ...]:
    """The checkpoints of a job: one Tokens per choice, in order, from index 0.

    Empty for a job without checkpoints, and ten minutes after its end.
    """
    with redis_errors():
        entries: list[Any] = await redis.xrange(keys.checkpoints(job_id))
    events = (event for _, fields in entries for event in decode_events(fields[b"e"]))
    return merge(event for event in events if isinstance(event, Tokens))


def merge(pieces: Iterable[Tokens]) -> tuple[Tokens, ...]:
    """One Tokens per choice: the contiguous ids from 0 on, with their text and finish reason.

    Pieces are in the order in which they were written; repeated ones are dropped. A piece without
    ids counts only as the last one of its choice, since nothing else tells that it is new. A longer
    one from index 0 stands for all before: its worker wrote it again, as Redis had been away.
    """
    merged: dict[int, Tokens] = {}
    for piece in pieces:
        have = merged.get(piece.choice)
        if piece.index == 0 and (have is None or len(piece.ids) > len(have.ids)):
            merged[piece.choice] = piece
        elif have is not None and _follows(have, piece):
            merged[piece.choice] = _append(have, piece)
    return tuple(merged[choice] for choice in sorted(merged))


def _follows(have: Tokens, piece: Tokens) -> bool:
    is_next = not have.finish and piece.index == len(have.ids)
    return is_next and bool(piece.ids or piece.finish)


def _append(have: Tokens, piece: Tokens) -> Tokens:
    return Tokens(
        job=have.job,
        try_=piece.try_,
        choice=have.choice,
        index=0,
        ids=have.ids + piece.ids,
        text=have.text + piece.text,
        finish=piece.finish,
        logprobs=have.logprobs + piece.logprobs,
        prompt_logprobs=have.prompt_logprobs,
    )
