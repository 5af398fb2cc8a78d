"""Front ends can't read adapters: they ask a worker to, and it tells what it found.

The request lies in a key of its own, and the worker's mailbox names it. Whoever takes it says so at
once, so that a lost message or a silent worker is noticed while the reading itself may take long.
"""

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from shared.errors import ErrorCode, JobError
from shared.protocol.codec import PROTOCOL_VERSION
from shared.protocol.ids import InspectionId, WorkerId
from shared.store.connection import MAX_BLOCK_S, Redis, redis_errors
from shared.store.keys import Keys
from shared.store.registry import Adapter
from shared.store.scripts import Scripts

TTL_MS = 60_000
TAKEN = b"taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a worker is asked to read and check."""

    name: str
    """What the adapter is or would be called."""
    source: str
    """A folder as the worker sees it, or a hub id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What it found: an adapter that can be served, or the reason why not."""

    adapter: Adapter | None = None
    """Its `created_s` is the time of the inspection."""
    error: JobError | None = None
    source: str | None = None
    """Where the files are, with links resolved; None if it isn't allowed to be known."""
    num_tensors: int = 0
    matched: tuple[str, ...] = ()
    """Tensors that belong to a module of the base model; the first so many."""
    unmatched: tuple[str, ...] = ()
    """The others, for any of which an adapter is refused; the first so many."""
    num_unmatched: int = 0
    ranks: tuple[tuple[int, int], ...] = ()
    """(rank, number of modules that have it), ascending."""
    trained_on: str | None = None
    """The base model by the adapter's own account."""


class Inspections:
    """Both sides of it, for one pool."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._scripts = Scripts(redis, keys)

    async def ask(self, wid: WorkerId, inspection_id: InspectionId, asked: Inspection) -> bool:
        """Ask a worker, under a fresh id; false if it was given up."""
        body = orjson.dumps({"v": PROTOCOL_VERSION, **asdict(asked)})
        return bool(await self._scripts.run("ask", wid, inspection_id, body, TTL_MS))

    async def next_reply(
        self, inspection_id: InspectionId, *, timeout_s: float
    ) -> Findings | bool | None:
        """True once it was taken, then the findings; None if nothing came in time.

        Waits two seconds at most. A reply may be lost when the call is cancelled or fails.
        """
        with redis_errors():
            reply = await self._redis.blpop(  # type: ignore[misc]
                [self._keys.findings(inspection_id)],
                timeout=min(timeout_s, MAX_BLOCK_S),  # type: ignore[arg-type]  # takes floats
            )
        if reply is None:
            return None
        return reply[1] == TAKEN or _decode(reply[1])

    async def withdraw(self, inspection_id: InspectionId) -> None:
        """Nobody waits for the answer any more; whoever hasn't taken it yet won't."""
        with redis_errors():
            await self._redis.delete(self._keys.inspection(inspection_id))

    async def take(self, inspection_id: InspectionId) -> Inspection | None:
        """What to inspect; None if somebody else has taken it, or nobody waits any more."""
        body = await self._scripts.run("take_inspection", inspection_id, TTL_MS)
        wire = orjson.loads(body) if body else {}
        if wire.pop("v", None) != PROTOCOL_VERSION:
            return None
        return Inspection(**wire)

    async def answer(self, inspection_id: InspectionId, findings: Findings) -> None:
        """Tell what was found. May be repeated."""
        wire = orjson.dumps(asdict(findings))
        await self._scripts.run("answer_inspection", inspection_id, wire, TTL_MS)


def _decode(raw: bytes) -> Findings:
    wire: dict[str, Any] = orjson.loads(raw)
    adapter, error = wire["adapter"], wire["error"]
    return Findings(
        adapter=Adapter(**adapter) if adapter else None,
        error=JobError(**{**error, "code": ErrorCode(error["code"])}) if error else None,
        source=wire["source"],
        num_tensors=wire["num_tensors"],
        matched=tuple(wire["matched"]),
        unmatched=tuple(wire["unmatched"]),
        num_unmatched=wire["num_unmatched"],
        ranks=tuple((rank, count) for rank, count in wire["ranks"]),
        trained_on=wire["trained_on"],
    )
