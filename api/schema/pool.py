"""Responses of /v1/pool."""

from typing import Literal

from pydantic import Field

from api.schema.base import Body


class HeldAdapter(Body):
    """A version on one worker."""

    version: str
    state: Literal["resident", "loading", "host"]
    """host: only in host memory, ready to be copied to the device."""
    running: int = Field(description="Jobs of this version that the worker owns.")


class PoolWorker(Body):
    """A worker of the pool, as of its last heartbeat."""

    id: str
    device: str
    dtype: str
    version: str = Field(description="Version of Lorikeet that the worker runs.")
    max_num_seqs: int
    running: int = Field(description="Jobs that the worker owns.")
    waiting: int = Field(description="Sequences that wait for KV cache blocks.")
    kv_used: float = Field(description="Used part of the KV cache, from 0 to 1.")
    adapter_bytes: int
    adapter_bytes_max: int
    host_adapter_bytes: int
    host_adapter_bytes_max: int
    lease_left_s: float
    """Seconds until the lease ends; negative: the worker may be dead."""
    is_stalled: bool = Field(description="Whether its engine seems to hang.")
    tokens_total: int = Field(description="Output tokens since the worker started.")
    adapters: list[HeldAdapter]
    """Versions that the worker holds, loads, has in host memory or runs."""


class PoolVersion(Body):
    """A version of an adapter, or the base model."""

    name: str
    version: str
    is_current: bool = Field(description="Whether new requests for the name use this version.")
    is_base: bool
    waiting: int
    running: int
    oldest_waited_s: float | None
    """Seconds that the first job of its queue has waited. This job runs next. Priorities and fair
    queueing between tenants may place it before jobs that have waited longer. null if no job
    waits."""
    requests: int = Field(description="Ended requests since it was registered.")
    tokens: int = Field(description="Tokens of the prompts and answers of these requests.")


class PoolQueue(Body):
    """Numbers of jobs. All but the first two are totals since the pool exists."""

    waiting: int
    running: int
    done: int
    failed: int
    cancelled: int
    expired: int
    dead: int
    retried: int = Field(description="Times that a job was requeued because its worker was lost.")
    released: int = Field(description="Times that a live worker released a job.")
    workers_lost: int


class PoolSlots(Body):
    """Capacity of the pool, in jobs that run at the same time."""

    total: int = Field(description="Slots of all live workers.")
    per_worker: int
    """Slots of the last worker that has joined. 0 if none has joined."""
    load: float
    """Number of workers that the unfinished jobs need: (waiting + running) / per_worker. If
    per_worker is 0, the load is 1 while jobs are unfinished. 1 until a worker has registered the
    base model. A job counts as one slot, even if it has several choices."""


class PoolRates(Body):
    """Rates over the last ten seconds."""

    tokens_per_s: float
    requests_per_s: float = Field(description="Answered requests per second.")
    ttft_p50_s: float | None = Field(description="Median time to the first token.")
    ttft_p95_s: float | None


class PoolIncident(Body):
    """An event that operators should see."""

    id: str
    time: float = Field(description="Unix time.")
    kind: str = Field(description="For example worker_lost or adapter_loaded.")
    text: str
    worker: str | None = None
    adapter: str | None = Field(None, description="The version that it concerns.")
    job: str | None = None
    jobs: int | None = Field(None, description="Jobs that the worker owned.")


PoolPoint = tuple[float, float, float | None, float | None, int, int]


class PoolBody(Body):
    """The state of the pool."""

    object: Literal["pool"] = "pool"
    pool: str
    base: str | None
    version: str = Field(description="Version of Lorikeet that this front end runs.")
    time: float = Field(description="Unix time at which the state was read.")
    accepts_jobs: bool
    has_worker: bool
    reason: str | None = Field(description="Why requests aren't answered at present.")
    workers: list[PoolWorker]
    adapters: list[PoolVersion]
    """At most 500, those with jobs first, then by name."""
    num_adapters: int = Field(description="Number of registered names.")
    queue: PoolQueue
    slots: PoolSlots
    rates: PoolRates
    incidents: list[PoolIncident] = Field(description="Newest first.")
    history: list[PoolPoint]
    """Points of the last five minutes, oldest first. Each has Unix time, tokens per second, median
    and 95 % quantile of the time to the first token, waiting jobs, running jobs."""
