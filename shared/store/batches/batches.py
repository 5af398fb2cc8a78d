"""Records of batches, and turns: the rights of control processes to run a batch for some time.

`take_turn.lua` decides which batch has the next turn.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from shared.errors import ErrorCode, LeaseLost, QueueFull, ReachedLimit, failed
from shared.protocol.access.rights import Access
from shared.protocol.ids import BatchId, FileId, JobId
from shared.protocol.results import Usage
from shared.store.batches.pages import Page, read_page
from shared.store.batches.records import Batch, BatchStatus, LineError
from shared.store.redis.pool_store import PoolStore
from shared.store.redis.scripts import Arg, flat

MAX_OPEN = 10_000
"""Maximum number of batches of a pool that haven't ended."""
MAX_OPEN_TENANT = 200
"""Maximum number of batches of one tenant that haven't ended."""
LEASE_MS = 10_000
"""Milliseconds without a renewal after which a batch may get another turn."""
PROMISE_MS = 60_000
"""Milliseconds within which a control process must begin its turn. Otherwise, another process can
get the turn."""
MAX_TURNS = 16
"""Maximum number of batches of a pool that have a turn at the same time."""
MAX_TURNS_TENANT = 8
"""Maximum number of batches of one tenant that have a turn at the same time."""
MAX_LINES_PER_COMMIT = 100

_PLAIN_FIELDS = (
    *("endpoint", "input_file", "window", "created_s", "expires_s"),
    *("key_id", "books_pool", "weight"),
)
"""Fields of a new batch whose values Redis stores unchanged."""
_CANCELLABLE = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedLines:
    """Lines of a batch that have ended."""

    parts: Sequence[str]
    """Names of the objects in the file store that have the results of the lines."""
    lines: Sequence[tuple[int, JobId | None]]
    """Pairs of a line's number, from 0, and the job that answered the line; None if no job did."""
    num_completed: int
    num_failed: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Turn:
    """The right of a control process, called the runner, to run a batch for some time."""

    batch: BatchId
    number: int

    @property
    def runner(self) -> str:
        """Name of the runner in the lease of the batch."""
        return str(self.number)


@dataclass(frozen=True, slots=True)
class Competition:
    """Numbers of the tenants and turns that share the pool with one turn, including this turn."""

    num_tenants: int
    """Number of tenants that have turns, including the tenant of the turn's batch."""
    num_turns: int
    """Number of turns that this tenant has, including the turn itself."""


def new_batch_id() -> BatchId:
    """Return a new random id."""
    return BatchId(f"batch_{secrets.token_hex(16)}")


class Batches(PoolStore):
    """Batches of one pool.

    Methods with a `runner` or a `Turn` are for control processes, which must hold the lease of the
    batch.
    """

    async def add(self, batch: Batch, *, keep_s: int, max_tenant: int) -> None:
        """Accept a batch.

        A tenant may have at most `max_tenant` batches, including ended ones that are still kept.
        `keep_s` is the longest time in seconds for which a batch is kept.

        Raises:
            QueueFull: the pool or the tenant has too many batches that haven't ended.
            JobFailed: the tenant has too many batches.
        """
        fields = {name: getattr(batch, name) for name in _PLAIN_FIELDS}
        fields |= {"status": batch.status.value, "models": " ".join(batch.models)}
        if batch.metadata is not None:
            fields["metadata"] = orjson.dumps(batch.metadata).decode()
        reply = await self._scripts.run(
            "add_batch",
            *(batch.id, batch.tenant, MAX_OPEN, MAX_OPEN_TENANT, max_tenant),
            *(batch.created_s * 1000, keep_s * 1000),
            *flat(fields.items()),
        )
        if reply == b"full":
            raise QueueFull(ReachedLimit.BATCHES, MAX_OPEN)
        if reply == b"busy":
            raise QueueFull(ReachedLimit.TENANT_BATCHES, MAX_OPEN_TENANT)
        if reply == b"many":
            message = f"there are {max_tenant} batches already; delete ended ones with DELETE "
            message += "/v1/batches/BATCH_ID, or ask the operator to raise --max-batches-tenant"
            raise failed(ErrorCode.QUOTA_EXCEEDED, message)

    async def get(self, batch_id: BatchId) -> Batch | None:
        """Return a batch, or None if it doesn't exist or has expired."""
        (found,) = await self._read([batch_id])
        return found

    async def page(self, access: Access, *, limit: int, after: str | None) -> Page[Batch] | None:
        """Return a page of the batches that a client may see; None if `after` isn't among them."""
        key = self._keys.batches_of(access.tenant)
        return await read_page(
            self._redis, key, self._read, access=access, limit=limit, after=after
        )

    async def cancel(self, batch_id: BatchId) -> None:
        """Stop a batch from starting further requests. Has no effect on a batch that has ended."""
        for status in _CANCELLABLE:
            await self._move(batch_id, "", status, BatchStatus.CANCELLING)

    async def delete(self, batch: Batch) -> bool:
        """Delete the record of an ended batch. Return False if the batch hasn't ended."""
        return bool(await self._scripts.run("delete_batch", batch.id, batch.tenant) == b"ok")

    async def with_parts(self, now_s: float, *, limit: int) -> list[BatchId]:
        """Return up to `limit` ended batches whose parts in the file store must be deleted now."""
        raw = await self._redis.zrangebyscore(
            self._keys.ended_batches, "-inf", now_s * 1000, start=0, num=limit
        )
        return [BatchId(each.decode()) for each in raw]

    async def delay_parts(self, batch_id: BatchId, until_s: float) -> None:
        """Retry the failed deletion of a batch's parts at the Unix time `until_s`."""
        await self._redis.zadd(self._keys.ended_batches, {batch_id: until_s * 1000}, xx=True)

    async def forget_parts(self, batch_id: BatchId) -> None:
        """Stop listing an ended batch for clean-up, because its parts were deleted."""
        await self._redis.zrem(self._keys.ended_batches, batch_id)

    async def open(self) -> list[BatchId]:
        """Return the batches that haven't ended, oldest first."""
        return [
            BatchId(raw.decode()) for raw in await self._redis.zrange(self._keys.batches, 0, -1)
        ]

    async def take_turn(self) -> Turn | None:
        """Give a turn to the next batch. Return None if no batch is due, or too many turns run."""
        reply = await self._scripts.run("take_turn", PROMISE_MS, MAX_TURNS, MAX_TURNS_TENANT)
        return Turn(BatchId(reply[0].decode()), reply[1]) if reply else None

    async def begin(self, turn: Turn) -> Competition:
        """Begin a turn, and count it as crashed until it ends or commits results.

        If its control process dies, the turn therefore stays counted as crashed.

        Raises:
            LeaseLost: the turn has ended.
        """
        return await self._renew(turn, is_begin=True)

    async def renew(self, turn: Turn) -> Competition:
        """Renew the right to run a batch.

        Raises:
            LeaseLost: the turn has ended.
        """
        return await self._renew(turn, is_begin=False)

    async def release(self, turn: Turn, *, wait_s: float = 0, failure: str = "") -> None:
        """End a turn. A batch that hasn't ended can get its next turn `wait_s` seconds later.

        `failure` is the reason why the turn failed; empty if it didn't fail.
        """
        args = turn.batch, turn.runner, int(wait_s * 1000), failure
        await self._scripts.run("release_turn", *args)

    async def start(self, batch_id: BatchId, runner: str, *, num_requests: int) -> BatchStatus:
        """Record that the input is valid, and return the batch's status after the call.

        Raises:
            LeaseLost: the runner may no longer run the batch.
        """
        to = BatchStatus.IN_PROGRESS
        return await self._move(batch_id, runner, BatchStatus.VALIDATING, to, num_requests)

    async def finalize(self, batch_id: BatchId, runner: str) -> None:
        """Record that the output files are being written, unless the batch is being cancelled.

        Raises:
            LeaseLost: the runner may no longer run the batch.
        """
        to = BatchStatus.FINALIZING
        await self._move(batch_id, runner, BatchStatus.IN_PROGRESS, to)

    async def done(self, batch_id: BatchId) -> bytes:
        """Return the bitmap of the lines that have ended. Line 0 is the highest bit of byte 0."""
        return await self._redis.get(self._keys.batch_done(batch_id)) or b""

    async def parts(self, batch_id: BatchId) -> list[str]:
        """Return the names of the file store's objects that have the batch's results so far."""
        key = self._keys.batch_parts(batch_id)
        return [raw.decode() for raw in await self._redis.lrange(key, 0, -1)]  # type: ignore[misc]

    async def commit(self, batch_id: BatchId, runner: str, ended: CommittedLines) -> None:
        """Record the results of requests that have ended, and delete their jobs.

        `ended` names the requests by their lines in the input file.

        Raises:
            LeaseLost: the runner has lost the batch's lease, or one of the lines was recorded
                before. In both cases, nothing is recorded.
        """
        usage = ended.usage
        args: list[Arg] = [batch_id, runner, ended.num_completed, ended.num_failed]
        args += [usage.prompt_tokens, usage.completion_tokens]
        args += [usage.cached_tokens, usage.reasoning_tokens]
        args += [len(ended.parts), *ended.parts]
        args += flat((number, job or "") for number, job in ended.lines)
        _check(batch_id, await self._scripts.run("commit_lines", *args))

    async def end(
        self,
        batch_id: BatchId,
        runner: str,
        status: BatchStatus,
        *,
        keep_s: int,
        announces: bool,
        output_file: FileId | None = None,
        error_file: FileId | None = None,
        errors: Sequence[LineError] = (),
    ) -> None:
        """End a batch. Its record is kept for `keep_s` seconds.

        If `announces`, a webhook is called later. `errors` are faults of the input file.

        Raises:
            LeaseLost: another runner runs the batch.
        """
        fields = {
            "output_file": output_file or "",
            "error_file": error_file or "",
            "errors": orjson.dumps([asdict(error) for error in errors]),
        }
        args = batch_id, runner, status.value, int(time.time()), keep_s * 1000, int(announces)
        _check(batch_id, await self._scripts.run("end_batch", *args, *flat(fields.items())))

    async def _renew(self, turn: Turn, *, is_begin: bool) -> Competition:
        args = turn.batch, turn.runner, LEASE_MS, int(is_begin)
        status, *counts = await self._scripts.run("renew_turn", *args)
        _check(turn.batch, status)
        return Competition(*counts)

    async def _move(
        self,
        batch_id: BatchId,
        runner: str,
        source: BatchStatus,
        to: BatchStatus,
        num_requests: int | None = None,
    ) -> BatchStatus:
        """Change a batch's status from `source` to `to`, and return the status after the call.

        A batch that doesn't have the status `source` stays as it is. `runner` is empty if a client
        asks for the change.

        Raises:
            LeaseLost: the runner may no longer run the batch.
        """
        number = "" if num_requests is None else num_requests
        args = batch_id, runner, source.value, to.value, int(time.time()), number
        reply = await self._scripts.run("move_batch", *args)
        if reply is None:  # the batch was deleted or has expired, so no status was changed
            return source
        if reply == b"lost":
            raise _lease_lost(batch_id)
        return BatchStatus(reply.decode())

    async def _read(self, ids: Sequence[str]) -> list[Batch | None]:
        """Return the batches with these ids, in the same order; None for ids without a record."""
        pipe = self._redis.pipeline(transaction=False)
        for each in ids:
            pipe.hgetall(self._keys.batch(BatchId(each)))
        return [
            _of_hash(BatchId(each), fields) if fields else None
            for each, fields in zip(ids, await pipe.execute(), strict=True)
        ]


def _check(batch_id: BatchId, reply: bytes) -> None:
    if reply != b"ok":
        raise _lease_lost(batch_id)


def _lease_lost(batch_id: BatchId) -> LeaseLost:
    return LeaseLost(f"another control process runs the batch {batch_id}")


def _of_hash(batch_id: BatchId, raw: Mapping[bytes, bytes]) -> Batch:
    fields = {name.decode(): value for name, value in raw.items()}

    def number(name: str) -> int:
        return int(fields.get(name, 0))

    def text(name: str) -> str:
        return fields.get(name, b"").decode()

    times = {status: number(f"{status}_s") for status in BatchStatus if f"{status}_s" in fields}
    errors: list[dict[str, Any]] = orjson.loads(fields.get("errors", b"[]"))
    return Batch(
        id=batch_id,
        tenant=text("tenant"),
        endpoint=text("endpoint"),
        input_file=FileId(text("input_file")),
        window=text("window"),
        created_s=number("created_s"),
        expires_s=number("expires_s"),
        models=tuple(text("models").split()),
        key_id=text("key_id"),
        books_pool=text("books_pool"),
        weight=float(text("weight") or 1),
        metadata=orjson.loads(fields["metadata"]) if "metadata" in fields else None,
        status=BatchStatus(text("status")),
        times=times,
        num_requests=number("num_requests"),
        num_completed=number("num_completed"),
        num_failed=number("num_failed"),
        usage=Usage(
            prompt_tokens=number("prompt_tokens"),
            completion_tokens=number("completion_tokens"),
            cached_tokens=number("cached_tokens"),
            reasoning_tokens=number("reasoning_tokens"),
        ),
        output_file=FileId(text("output_file")) if text("output_file") else None,
        error_file=FileId(text("error_file")) if text("error_file") else None,
        errors=tuple(LineError(**error) for error in errors),
        num_deaths=number("deaths"),
        num_failures=number("failures"),
        failure=text("failure"),
    )
