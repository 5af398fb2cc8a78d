"""Audit that runs all the time in short steps, and keeps its position and results in Redis.

Any number of processes may run steps. Steps that run at the same time repeat each other's work,
which does no harm.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import orjson

from shared.store.audit.auditor import LOOK_S, Auditor
from shared.store.audit.facts import Stray
from shared.store.redis.connection import Redis, unix_ms
from shared.store.redis.keys import Keys

MAX_SCANS = 50
"""Maximum number of SCAN calls of one step. Each call covers 200 keys of the database."""
MAX_SCAN_S = 5.0
"""Seconds after which a step makes no further SCAN call."""
MAX_KEPT = 500
"""Maximum number of strays, and of suspects, that are kept between two steps."""
NUM_LOOKS = 3
"""Number of times that a step checks the suspects of the previous step. The checks are `LOOK_S`
seconds apart."""
TTL_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStatus:
    """Results of the audit so far."""

    num_keys: int
    """Number of keys that the latest complete pass over the pool has checked."""
    strays: tuple[Stray, ...] = ()
    """Strays that the latest step has found, both new and known ones."""
    checked_ms: int
    """Unix time in milliseconds of the latest step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """State between two steps. Redis keeps it."""

    cursor: int = 0
    num_keys: int = 0
    """Number of keys that this pass has checked so far."""
    suspects: tuple[Stray, ...] = ()
    strays: tuple[Stray, ...] = ()
    last_num_keys: int = 0
    """Number of keys that the latest complete pass has checked."""


class RunningAudit:
    """Audits one pool step by step."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._key = keys.audit
        self._auditor = Auditor(redis, keys)

    async def step(self) -> tuple[Stray, ...]:
        """Check further keys, and return the strays that this step has found for the first time.

        A stray is a key that looks wrong in two steps. The second step checks the key `NUM_LOOKS`
        times, because a key that is in use may look wrong by chance.
        """
        before = await self._load()
        strays = await self._confirmed((*before.strays, *before.suspects))
        after = await self._scanned(before, strays)
        await self._save(after)
        return tuple(stray for stray in strays if stray not in before.strays)

    async def status(self) -> AuditStatus | None:
        """Return the results so far, or None if no step has run for an hour."""
        raw = await self._redis.hget(self._key, "checked_ms")  # type: ignore[misc]
        if raw is None:
            return None
        progress = await self._load()
        return AuditStatus(
            num_keys=progress.last_num_keys, strays=progress.strays, checked_ms=int(raw)
        )

    async def _confirmed(self, suspects: Sequence[Stray]) -> tuple[Stray, ...]:
        for look in range(NUM_LOOKS):
            if look and suspects:
                await asyncio.sleep(LOOK_S)
            suspects = await self._auditor.check_again(suspects)
        return tuple(sorted(suspects))

    async def _scanned(self, before: _Progress, strays: tuple[Stray, ...]) -> _Progress:
        """Return the progress after a scan of some further keys."""
        cursor, num_keys, last_num_keys = before.cursor, before.num_keys, before.last_num_keys
        suspects: set[Stray] = set()
        started_s = time.monotonic()
        for _ in range(MAX_SCANS):
            cursor, found = await self._auditor.reader.scan(cursor)
            suspects.update(await self._auditor.check(found))
            num_keys += len(found)
            if cursor == 0:
                num_keys, last_num_keys = 0, num_keys
            if cursor == 0 or time.monotonic() - started_s > MAX_SCAN_S:
                break
        return _Progress(
            cursor=cursor,
            num_keys=num_keys,
            suspects=tuple(sorted(suspects.difference(strays))[:MAX_KEPT]),
            strays=strays[:MAX_KEPT],
            last_num_keys=last_num_keys,
        )

    async def _load(self) -> _Progress:
        raw = await self._redis.hgetall(self._key)  # type: ignore[misc]
        if not raw:
            return _Progress()
        return _Progress(
            cursor=int(raw[b"cursor"]),
            num_keys=int(raw[b"num_keys"]),
            suspects=_decoded(raw[b"suspects"]),
            strays=_decoded(raw[b"strays"]),
            last_num_keys=int(raw[b"last_num_keys"]),
        )

    async def _save(self, progress: _Progress) -> None:
        now_ms = unix_ms(await self._redis.time())
        pipe = self._redis.pipeline()
        pipe.hset(
            self._key,
            mapping={
                "cursor": progress.cursor,
                "num_keys": progress.num_keys,
                "suspects": _encoded(progress.suspects),
                "strays": _encoded(progress.strays),
                "num_strays": len(progress.strays),
                "last_num_keys": progress.last_num_keys,
                "checked_ms": now_ms,
            },
        )
        pipe.expire(self._key, TTL_S)
        await pipe.execute()


def _encoded(strays: Sequence[Stray]) -> bytes:
    return orjson.dumps([astuple(stray) for stray in strays])


def _decoded(raw: bytes) -> tuple[Stray, ...]:
    return tuple(Stray(*fields) for fields in orjson.loads(raw))
