"""Inspections: requests to a worker to read and check the files of an adapter.

Front ends can't read these files themselves. Each request has its own key, and the worker's mailbox
receives the request's id. The worker confirms the request before it reads the files. A front end
therefore quickly detects a lost message or a worker that doesn't respond, even if reading the files
takes long.
"""

from dataclasses import asdict, dataclass

import orjson

from shared.errors import JobError
from shared.protocol.adapters import Adapter, decode_adapter
from shared.protocol.codec import PROTOCOL_VERSION, decode_job_error
from shared.protocol.ids import InspectionId, WorkerId
from shared.protocol.known_fields import Forms, known_fields
from shared.store.redis.pool_store import PoolStore

TTL_MS = 60_000
"""Milliseconds after which a request or a reply expires."""
TAKEN = b"taken"
"""First reply to a request. It confirms that a worker has taken the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A request to read and check an adapter."""

    name: str
    """Name of the adapter. It needn't be registered yet."""
    source: str
    """Source of the adapter: a folder on the worker's machine, a hub id, a URL or an upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Result of an inspection: an adapter that can be served, or an error."""

    adapter: Adapter | None = None
    """The adapter, if it can be served. Its `created_s` is the time of the inspection."""
    error: JobError | None = None
    source: str | None = None
    """Path of the adapter's folder, with symbolic links resolved; None if clients may not see the
    path."""
    num_tensors: int = 0
    matched: tuple[str, ...] = ()
    """Names of the first few tensors that belong to a module of the base model."""
    unmatched: tuple[str, ...] = ()
    """Names of the first few tensors that belong to no module of the base model. A single such
    tensor makes the adapter invalid."""
    num_unmatched: int = 0
    """Total number of tensors that belong to no module of the base model."""
    ranks: tuple[tuple[int, int], ...] = ()
    """Pairs of a rank and the number of modules with this rank, in ascending order of rank."""
    trained_on: str | None = None
    """Name of the base model for which the adapter was trained, from the adapter's configuration;
    None if the name can't be read."""


class Inspections(PoolStore):
    """Sends, takes and answers the inspections of one pool."""

    async def ask(self, wid: WorkerId, inspection_id: InspectionId, asked: Inspection) -> bool:
        """Send an inspection to the worker `wid`. Return False if the worker isn't in the pool.

        `inspection_id` must not have been used before.
        """
        body = orjson.dumps({"v": PROTOCOL_VERSION, **asdict(asked)})
        return bool(await self._scripts.run("send_inspection", wid, inspection_id, body, TTL_MS))

    async def next_reply(
        self, inspection_id: InspectionId, *, timeout_s: float
    ) -> Findings | bool | None:
        """Return the next reply to a request.

        The first reply is True, which confirms the request. The second reply is the findings. The
        call waits for `timeout_s`, but at most two seconds, and returns None if no reply arrives. A
        reply may be lost if the call is cancelled or fails.
        """
        reply = await self._take_first(self._keys.findings(inspection_id), timeout_s)
        return None if reply is None else reply == TAKEN or _decode(reply)

    async def withdraw(self, inspection_id: InspectionId) -> None:
        """Withdraw a request. A worker that hasn't taken the request can no longer take it."""
        await self._redis.delete(self._keys.inspection(inspection_id))

    async def take(self, inspection_id: InspectionId) -> Inspection | None:
        """Take a request, and return it. The front end that sent it gets a confirmation.

        Returns None if the request was withdrawn or already taken.
        """
        body = await self._scripts.run("take_inspection", inspection_id, TTL_MS)
        wire = orjson.loads(body) if body else {}
        if wire.pop("v", None) != PROTOCOL_VERSION:
            return None
        return Inspection(**wire)

    async def answer(self, inspection_id: InspectionId, findings: Findings) -> None:
        """Publish the findings of an inspection. The call may be repeated."""
        wire = orjson.dumps(asdict(findings), default=sorted)  # orjson encodes no sets
        await self._scripts.run("answer_inspection", inspection_id, wire, TTL_MS)


def _decode(raw: bytes) -> Findings:
    forms: Forms = {"adapter": decode_adapter, "error": decode_job_error}
    forms |= {"matched": tuple, "unmatched": tuple, "ranks": lambda pairs: tuple(map(tuple, pairs))}
    return Findings(**known_fields(Findings, orjson.loads(raw), **forms))
