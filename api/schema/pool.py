"""Responses of /v1/pool."""

from typing import Literal

from pydantic import Field

from api.schema.base import Body, StrictBody
from api.schema.workers import Mode
from shared.store.adapters.candidates import CandidateMode


class HeldAdapter(Body):
    """A version on one worker."""

    version: str
    state: Literal["resident", "loading", "host"]
    """host: only in host memory, ready to be copied to the device."""
    running: int = Field(description="Jobs of this version that the worker owns.")


class PoolWorker(Body):
    """A worker of the pool, as of its latest heartbeat."""

    id: str
    name: str = Field(description="Short name, which no other worker of the pool has.")
    state: Mode = Field(description="paused and draining: it gets no jobs.")
    device: str
    dtype: str
    version: str = Field(description="Version of Lorikeet that the worker runs.")
    max_num_seqs: int
    running: int = Field(description="Jobs that the worker owns.")
    slots_used: int = Field(description="Sequences in the running batch.")
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
    serves: str | None
    """Adapters that the worker serves, such as `plain LoRA up to rank 64`; null means all."""
    adapters: list[HeldAdapter]
    """Versions that the worker holds, loads, has in host memory or runs."""


class PoolCandidate(Body):
    """Part of an adapter's requests that its candidate takes."""

    mode: CandidateMode
    """canary: it answers the requests. shadow: it computes copies of them."""
    percent: float = Field(description="Share of the requests, from 0 to 100.")


class PoolVersion(Body):
    """A version of an adapter, or the base model."""

    name: str
    version: str
    is_current: bool = Field(description="Whether new requests for the name use this version.")
    is_base: bool
    is_paused: bool = Field(description="Whether its jobs wait until the adapter is resumed.")
    waiting: int
    running: int
    oldest_waited_s: float | None
    """Seconds that the first job of its queue has waited. This job runs next. Priorities and fair
    queueing between tenants may place it before jobs that have waited longer. null if no job
    waits."""
    requests: int = Field(description="Ended requests since it was registered.")
    tokens: int = Field(description="Tokens of the prompts and answers of these requests.")
    candidate: PoolCandidate | None
    """Mode and share of a version that is tried out. null for other versions."""


class PoolQueue(Body):
    """Numbers of jobs. All but the first two are totals since the pool was created."""

    waiting: int
    running: int
    done: int
    failed: int
    failed_client: int
    """How many jobs of `failed` had a request at fault: their error's status is below 500."""
    cancelled: int
    expired: int
    dead: int
    retried: int = Field(description="Times that a job was requeued because its worker was lost.")
    released: int = Field(description="Times that a live worker released a job.")
    workers_lost: int


class PoolSlots(Body):
    """Capacity of the pool, in choices of jobs that run at the same time."""

    total: int = Field(description="Slots of all live workers.")
    used: int = Field(description="Sequences in the running batches of these workers.")
    per_worker: int
    """Slots of the worker that joined most recently. 0 if no worker has joined."""
    needed: int
    """Slots that the unfinished jobs need. Each choice of a job needs one."""
    load: float
    """Number of workers that the unfinished jobs need: needed / per_worker. If per_worker is 0, the
    load is 1 while jobs are unfinished. The load is also 1 until a worker has registered the base
    model."""


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
    process: str | None = Field(None, description="Id of the front end or control process.")
    subject: str | None = Field(None, description="Job, version, worker or process.")
    jobs: int | None = Field(None, description="Jobs that the worker owned.")


class PoolPause(Body):
    """A pause during which workers get no jobs."""

    by: str = Field(description="Author, as in the audit log.")
    since: float = Field(description="Unix time.")


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
    pause: PoolPause | None = None
    """Pause of the pool. Requests are accepted, and wait until POST /continue_generation."""
    workers: list[PoolWorker]
    adapters: list[PoolVersion]
    """At most 500 versions: first the base model, then the others by name. If there are more,
    versions without jobs are left out first."""
    num_adapters: int = Field(description="Number of registered names.")
    queue: PoolQueue
    slots: PoolSlots
    rates: PoolRates
    num_strays: int
    """Keys in Redis that have neither an owner nor a lifetime; `lorikeet audit` lists them."""
    incidents: list[PoolIncident] = Field(description="Newest first.")
    history: list[PoolPoint]
    """Points of the last five minutes, oldest first. Each has Unix time, tokens per second, median
    and 95 % quantile of the time to the first token, waiting jobs, running jobs."""


class HistoryQuery(StrictBody):
    """Query of GET /v1/pool/history."""

    window: Literal["5m", "1h", "24h"] = "5m"
    """Period that ends now."""


Series = list[float | None]


class HistorySeries(Body):
    """Series of the plots. A value is null where nothing was measured."""

    tokens_per_s: Series
    jobs_per_s: Series = Field(description="Answered jobs per second.")
    failed_per_s: Series
    """Jobs per second that failed, died or expired, without those whose requests were at fault."""
    waiting: Series = Field(description="Waiting jobs.")
    ttft_p50_s: Series = Field(description="Median time to the first token.")


class HistoryIncident(Body):
    """An incident in the period."""

    at: float = Field(description="Unix time.")
    kind: str
    text: str
    subject: str | None = Field(description="Job, version, worker or process.")


class HistoryBody(Body):
    """Plots of the pool."""

    object: Literal["pool.history"] = "pool.history"
    window: Literal["5m", "1h", "24h"]
    step_s: float = Field(description="Seconds between two values.")
    started_at: float = Field(description="Unix time at which the first step begins.")
    series: HistorySeries
    incidents: list[HistoryIncident] = Field(description="Oldest first.")
