"""Published tokens: a reply stream for each front end, and a checkpoint stream for each job."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from shared.errors import RedisUnavailable
from shared.protocol.codec import decode_events
from shared.protocol.events import Event, Tokens
from shared.protocol.ids import ApiId, JobId
from shared.protocol.jobs import ClaimedJob
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

BLOCK_MS = 1000
"""Maximum milliseconds for which `ReplyReader.read` waits for events."""
TTL_MS = 120_000
"""Milliseconds after which a reply stream expires unless it is renewed or written."""
MAINTAIN_EVERY_S = 1.0
"""Seconds between two deletions of stream entries that were already read."""


class ReplyReader:
    """Reads the reply stream of one front end, beginning with the stream's first entry."""

    def __init__(self, redis: Redis, keys: Keys, api: ApiId) -> None:
        self._redis = redis
        self._stream = keys.replies(api)
        self._last_id = b"0-0"
        self._maintained_s = 0.0

    async def read(self) -> list[Event]:
        """Return the events since the previous call, oldest first. Wait up to a second for one.

        Raises:
            RedisUnavailable: Redis can't serve. The next call continues at the same position.
            ProtocolMismatch: a message has a protocol version that this release can't read. All
                events of this call are dropped, and the next call continues after them.
        """
        try:
            await self._maintain()
            reply = await self._redis.xread({self._stream: self._last_id}, block=BLOCK_MS)
        except RedisUnavailable:
            self._maintained_s = 0.0  # so that the stream is checked as soon as Redis is back
            raise
        entries = reply[0][1] if reply else []
        if entries:
            self._last_id = entries[-1][0]
        return [event for _, fields in entries for event in decode_events(fields[b"e"])]

    async def _maintain(self) -> None:
        """Delete the entries that were read, except the last one, and renew the stream."""
        if time.monotonic() - self._maintained_s < MAINTAIN_EVERY_S:
            return
        newest = await self._redis.xrevrange(self._stream, count=1)
        if newest and _order(newest[0][0]) < _order(self._last_id):
            self._last_id = b"0-0"  # the stream is new, and its server has an earlier clock
        pipe = self._redis.pipeline(transaction=False)
        pipe.xtrim(self._stream, minid=self._last_id.decode(), approximate=False)
        pipe.pexpire(self._stream, TTL_MS)
        await pipe.execute()
        self._maintained_s = time.monotonic()


def _order(entry: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in entry.split(b"-"))


async def recover(redis: Redis, keys: Keys, job: ClaimedJob) -> tuple[Tokens, ...]:
    """Return the tokens that earlier tries of a job have published. The job continues after them.

    The checkpoints contain all of these tokens, because a handover adds the missing ones.
    """
    return await read_checkpoints(redis, keys, job.job.id)


async def read_checkpoints(redis: Redis, keys: Keys, job_id: JobId) -> tuple[Tokens, ...]:
    """Return the tokens in a job's checkpoints: one `Tokens` per choice, which starts at index 0.

    The choices are in order. The result is empty if the job has no checkpoints or is done.
    """
    entries: list[Any] = await redis.xrange(keys.checkpoints(job_id))
    events = (event for _, fields in entries for event in decode_events(fields[b"e"]))
    return merge(event for event in events if isinstance(event, Tokens))


def merge(pieces: Iterable[Tokens]) -> tuple[Tokens, ...]:
    """Join `pieces` into one `Tokens` per choice, which starts at index 0.

    `pieces` are in the order in which they were written. Repeated pieces and pieces after a gap are
    dropped. A piece without ids and without a finish reason is also dropped, because it may be a
    repeated one. After an outage of Redis, a worker writes all tokens of a choice again, in a piece
    with index 0. This piece replaces the choice's earlier ones if it has more ids than all of them.
    """
    merged: dict[int, Tokens] = {}
    for piece in pieces:
        joined = merged.get(piece.choice)
        if piece.index == 0 and (joined is None or len(piece.ids) > len(joined.ids)):
            merged[piece.choice] = piece
        elif joined is not None and _follows(joined, piece):
            merged[piece.choice] = _append(joined, piece)
    return tuple(merged[choice] for choice in sorted(merged))


def _follows(joined: Tokens, piece: Tokens) -> bool:
    is_next = not joined.finish and piece.index == len(joined.ids)
    return is_next and bool(piece.ids or piece.finish)


def _append(joined: Tokens, piece: Tokens) -> Tokens:
    return replace(
        joined,
        try_=piece.try_,
        ids=joined.ids + piece.ids,
        text=joined.text + piece.text,
        finish=piece.finish,
        logprobs=joined.logprobs + piece.logprobs,
    )
