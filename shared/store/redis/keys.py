"""Every Redis key of a pool, with its type, content and lifetime.

A pool is one base model and its workers. All of its keys have the same hash tag. They are therefore
in the same slot of a Redis Cluster, and scripts may access any of them. A sorted set (ZSET) is
described as member -> score, and a HASH may be described as field -> value. A key without a stated
lifetime is deleted when it is empty. Pool time is defined at `due`.

The scripts in `shared/store/lua/` build the same keys from the prefix. A new kind of key also needs
a rule in `shared/store/audit/rules.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, ParamSpec

from shared.protocol.ids import (
    AdapterVersion,
    ApiId,
    BatchId,
    CallId,
    FileId,
    InspectionId,
    JobId,
    UploadId,
    WorkerId,
)

P = ParamSpec("P")


class Single:
    """A kind of key. Each pool has one key of this kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __get__(self, keys: "Keys", _: type["Keys"]) -> str:
        return f"{keys.prefix}{self.kind}"


class Each(Generic[P]):
    """A kind of key. A pool has one key of this kind for each id, name or tenant."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __get__(self, keys: "Keys", _: type["Keys"]) -> Callable[P, str]:
        def key(*names: P.args, **_: P.kwargs) -> str:
            return ":".join((f"{keys.prefix}{self.kind}", *map(str, names)))

        return key


@dataclass(frozen=True, slots=True)
class Keys:
    """Redis keys of one pool."""

    pool: str

    @property
    def prefix(self) -> str:
        """Prefix of every key of the pool. The scripts build the keys from it."""
        return f"{{lk:{self.pool}}}:"

    job = Each[JobId]("job")
    """HASH: state, version, body and further fields of a job.

    The body is deleted when the job ends. The field `request` of a job with a view stays, since
    the answer repeats it.

    Expires `retain` milliseconds after the end of the job. Deleted earlier if a client erases the
    job, or if the kept jobs need too much memory.
    """
    result = Each[JobId]("res")
    """STRING: `Result` of an ended job. Expires `retain` milliseconds after the end of the job."""
    queue = Each[AdapterVersion]("q")
    """ZSET: id of a waiting job -> tag of fair queueing minus priority boost."""
    featured = Each[AdapterVersion]("featured")
    """HASH: unfinished job of the version -> features that its worker must serve.

    The hash has only jobs that need such a feature. A field is deleted when its job ends.
    """
    ready = Single("ready")
    """ZSET: version with waiting jobs -> score of its first job."""
    cold = Single("cold")
    """ZSET: the members of `ready` that no live worker holds, with the same scores."""
    held = Single("held")
    """ZSET: version of a paused adapter with waiting jobs -> score of its first job.

    These versions aren't in `ready`, so that workers don't find their jobs.
    """
    paused_adapters = Single("pausedadapters")
    """HASH: name of a paused adapter -> Unix time in ms of the pause. A field is deleted when the
    adapter is resumed or unloaded."""
    owned = Each[WorkerId]("own")
    """ZSET: id of a running job of the worker -> random epoch of its claim.

    Each call of `claim` has its own epoch. Epochs don't repeat, even after a failover of Redis.
    """
    cancelled = Each[WorkerId]("cancelled")
    """SET: running jobs of the worker that clients have cancelled.

    A job is removed when it ends. The key expires a minute after the last cancellation.
    """
    sent = Each[WorkerId]("sent")
    """LIST: the worker's latest publications, one item each.

    Each line of an item is a copy of what was sent to one API process. The items contain every
    published token that isn't in a checkpoint. Deleted when the worker has finished all its
    jobs, or when its jobs are handed over. Expires a day after the latest publication.
    """
    running = Each[AdapterVersion]("run")
    """SET: running jobs of the version."""
    followers = Single("followers")
    """HASH: unfinished job -> further API processes that follow it.

    The API process that accepted the job isn't listed. A field is deleted when its job ends.
    """
    apis = Single("apis")
    """ZSET: API process -> pool time in ms of its last report. Removed after a day without one."""
    processes = Single("processes")
    """ZSET: `front_end` or `control` and the id of a process -> pool time in ms of its last report.

    Sweeps remove a process after a minute without a report, and record an incident.
    """
    abandoned = Single("abandoned")
    """ZSET: unfinished job without clients -> pool time in ms at which it is cancelled."""
    ended = Single("ended")
    """ZSET: job id, kept bytes and tenant of an ended job -> Unix time in ms of its expiry."""
    kept = Single("kept")
    """ZSET: tenant -> memory in bytes that its ended jobs need."""
    jobs = Each[str]("jobs")
    """ZSET: job of the tenant -> Unix time in ms of its enqueueing. Sweeps remove expired jobs."""
    all_jobs = Single("jobs")
    """ZSET: the members of all sets `jobs:TENANT`, with the same scores."""
    record = Each[JobId]("record")
    """STRING: JSON record of a job that ended without an answer.

    It has metadata, reason and timeline, but not the prompt. Expires `unanswered_days` after the
    end of the job.
    """
    unanswered = Single("unanswered")
    """ZSET: id and fields of a record, separated by tabs -> Unix time in ms of its enqueueing.

    The fields are state, model, version, error code, bytes of memory and tenant. Sweeps remove
    expired records.
    """
    unanswered_of = Each[str]("unanswered")
    """ZSET: the members of `unanswered` with one tenant, with the same scores."""
    unanswered_bytes = Single("unansweredbytes")
    """ZSET: tenant -> memory in bytes that the records of its unanswered jobs need."""
    wide = Single("wide")
    """HASH: unfinished job with more than one sequence -> number of its sequences.

    A field is deleted when its job ends.
    """
    idempotency = Each[[str, str]]("idem")
    """STRING: job of the first request with an idempotency key, and digest of the request's body.

    The names are the tenant and the digest of the idempotency key. Expires together with the job.
    """
    due = Single("due")
    """ZSET: unfinished job -> its deadline, as pool time in milliseconds.

    Pool time is Redis' clock without its jumps and without periods in which Redis was
    unavailable.
    """
    missing = Single("missing")
    """ZSET: worker whose lease has ended -> Unix time in ms at which a sweep noticed this."""
    lost = Single("lost")
    """ZSET: worker with jobs to hand over -> number of its jobs, or -1 if the worker left."""
    charged = Each[WorkerId]("charged")
    """HASH: job -> deaths charged to it when the worker died. Expires after an hour."""
    capacity = Single("capacity")
    """ZSET: worker -> capacity of its KV cache in tokens.

    The live workers of each class are in a set of their own, `capacity:CLASS`.
    """
    classes = Single("classes")
    """SET: classes (text forms of `Capabilities`) of live workers that don't serve every job."""
    doomed = Single("doomed")
    """SET: quarantined versions whose waiting jobs must still be ended."""
    workers = Single("workers")
    """ZSET: worker -> end of its lease, as Unix time in ms on Redis' clock."""
    worker = Each[WorkerId]("w")
    """HASH: `WorkerInfo`, maximum sequences, class, last heartbeat, lease and publications.

    Times are in ms. The field `published` is the number of the latest publication; the first has
    the number 1. The field `served` has the totals of the latest heartbeat. The field `stalled` is
    set while the worker's engine seems to hang. The field `mode` is set while the worker gets no
    jobs: to `paused` or `draining`. Expires a minute after the latest heartbeat.
    """
    residents = Each[WorkerId]("has")
    """SET: versions that the worker holds. Deleted after the worker has left or died."""
    holders = Each[AdapterVersion]("on")
    """SET: workers that hold the version."""
    idle = Single("idle")
    """ZSET: parked worker -> number of sequences for which it has idle capacity.

    The fractional part of the score grows with the capacity for jobs that aren't preemptible. The
    parked workers of each class are in a set of their own, `idle:CLASS`.
    """
    mailbox = Each[WorkerId]("wake")
    """LIST: messages to the worker (`Mail`). Expires a minute after the last message."""
    loading = Each[AdapterVersion]("load")
    """STRING: the only worker that may load this version. Expires unless it is renewed."""
    tenant = Each[str]("t")
    """HASH: tags of fair queueing, number of waiting jobs and bytes of unfinished requests.

    Preemptible jobs have a tag of their own, `preemptible_tag`. Expires a day after the tenant's
    last job stopped waiting.
    """
    counters = Single("cnt")
    """HASH: counters of the pool. Never deleted.

    - Totals: number of jobs in each final state (the field is the state's name), of jobs that
      failed because of their requests (`failed_client`), of retried jobs (`retried`), of released
      jobs (`released`), of lost workers (`workers_lost`), of records that were deleted for lack of
      memory (`unanswered_dropped`), and of forgotten versions (`forgotten`).
    - Current values: number of waiting jobs (`waiting`), size of unfinished requests in bytes
      (`bytes`), memory that kept jobs need, in bytes (`kept`), and limit of this memory
      (`retain_bytes`). A kept job is an ended job that is still stored. Memory that the records of
      unanswered jobs need, in bytes (`unanswered`), and its limits (`unanswered_bytes`,
      `unanswered_days`).
    - Fair queueing: virtual time of jobs that aren't preemptible (`vtime`), of preemptible jobs
      (`preemptible_vtime`) and of turns of batches (`turns_vtime`), and number of jobs enqueued so
      far (`arrivals`).
    - Moving averages: time from a job's claim to the answer, in ms (`run_ms`), and number of
      answered jobs per second (`rate`), with the time of the last update (`rated`).
    - Redis' memory: time of the last check (`memory_ms`), whether too much memory was in use
      (`memory_high`), and the limit (`max_memory`).
    - Number of previous versions that adapters keep (`keep_versions`).
    - Number of days for which the ledger is kept (`usage_days`).
    - Revision of the registry (`registry`): the time of its last change.
    - Maximum number of sequences of the worker that joined most recently (`slots`).
    - Time of the last sample of the history (`sampled`). End of the last outage of Redis that a
      process has reported (`outage_ms`), and Redis' `run_id`.
    - Clock: time of the last sweep (`swept`), and how far pool time lags behind Redis' clock
      (`lag`). A gap between two sweeps increases the lag if the gap is longer than a limit
      (`stall_ms`). The field `resumed` has the time of the first sweep after the last such gap, or
      after the clock last jumped by more than the limit.
    """
    served = Single("served")
    """HASH: totals of all workers: output `tokens`, and first tokens by bucket. Never deleted.

    Heartbeats add to the totals. The fields of the buckets are `first_0`, `first_1`, and so on.
    """
    history = Single("history")
    """LIST: the newest 300 samples of the pool's totals, newest first, about one per second.

    Sweeps add the samples. Expires ten minutes after the last sample.
    """
    long_history = Each[int]("history")
    """LIST: samples like those of `history`, but with longer steps. The name is the step in ms.

    Expires after 600 steps without a sample.
    """
    incidents = Single("incidents")
    """STREAM: about the 200 newest incidents, such as the loss of a worker. Never deleted."""
    replies = Each[ApiId]("out")
    """STREAM: events that one API process hasn't read yet.

    Events older than about a minute are removed. Expires two minutes after the stream was last
    renewed or written.
    """
    checkpoints = Each[JobId]("tok")
    """STREAM: published tokens of a job.

    The worker adds an entry every 16 tokens or 250 ms, and a handover adds the missing tokens.
    Deleted when the job is done. If the job ends otherwise, the key expires with the job's
    record.
    """
    control = Each[str]("control")
    """STRING: arq's counters for the control process of one host. Expires unless renewed."""
    scheduler = Single("arq")
    """ZSET: due task of the control processes -> Unix time in ms at which it is due."""
    audit = Single("audit")
    """HASH: position and results of the running audit. Expires an hour after its last step."""
    dead = Single("dead")
    """STREAM: about the 10,000 newest dead letters. The control process deletes old ones."""
    reported = Single("reported")
    """STRING: id of the newest dead letter that was logged. Expires a month after the last
    check."""
    adapters = Single("adapters")
    """SET: registered adapter names. Deleted when the base model changes."""
    adapter = Each[str]("adapter")
    """HASH: current version of the name, and whether a client or a worker set it.

    The fields that begin with `candidate` hold the `Share` of the candidate version. If the name
    was unloaded, the version is empty. The key of an unloaded name expires after an hour. If a
    worker was started with the name, the key is kept instead, so that a restart of the worker
    doesn't register the name again. Deleted when the base model changes.
    """
    pins = Single("pins")
    """HASH: pinned adapter name -> minimum number of workers that hold its current version.

    A field is deleted when the name is unloaded or the base model changes.
    """
    pin_load = Each[AdapterVersion]("pinload")
    """STRING: exists while a worker loads a pinned version. Expires after half a minute."""
    changes = Single("changes")
    """STREAM: audit log, about 10,000 newest changes of adapters and API keys. Never deleted."""
    paused = Single("paused")
    """HASH: author of a pause (`by`), and Unix time in ms at which the pause began (`since`).

    While the key exists, workers get no jobs. Deleted when a client lets the pool continue.
    """
    shadows = Single("shadows")
    """ZSET: ids of a job and of the shadow's copy of it -> Unix time in ms of the copying.

    The control process compares the answers and removes the pair.
    """
    compared = Each[AdapterVersion]("compared")
    """HASH: `Comparison` of a candidate version. Deleted when its trial ends."""
    differing = Each[AdapterVersion]("differing")
    """LIST: 100 newest `PairReport`s of pairs that differ, newest first. Deleted with
    `compared`."""
    previous = Each[str]("previous")
    """LIST: previous versions of the name. The next rollback takes the first, by default."""
    version = Each[AdapterVersion]("version")
    """HASH: digests, source, rank, state and usage of a version.

    Deleted when no name and no waiting or running job refers to the version.
    """
    needs = Single("needs")
    """HASH: version -> text form of the `Needs` of its jobs. Deleted together with the version."""
    retired = Single("retired")
    """ZSET: version without a name -> Unix time in ms at which it lost its name."""
    quarantined = Single("quarantined")
    """ZSET: quarantined version -> Unix time in ms at which it was quarantined."""
    inspection = Each[InspectionId]("inspect")
    """STRING: an `Inspection`. Deleted when a worker takes it. Expires after a minute."""
    findings = Each[InspectionId]("found")
    """LIST: confirmation and `Findings` of an inspection. Expires a minute after the last entry."""
    starting = Single("starting")
    """STRING: latest `StartStep` that a starting worker reported. Expires after 10 s."""
    staging = Each[str]("staging")
    """STRING: `Staging` of an adapter that a worker fetches from a URL.

    Deleted when the adapter was read. Expires ten seconds after the last progress.
    """
    lookup = Each[str]("lookup")
    """STRING: `looking` while a front end looks up an unknown adapter; later the lookup's error.

    Deleted when the adapter is registered. The word `looking` expires after ten seconds unless
    the front end renews it. An error expires after half a minute.
    """
    failed_load = Each[AdapterVersion]("failedload")
    """STRING: worker that couldn't load the version. Expires a minute after the incident."""
    calls = Single("calls")
    """LIST: waiting calls for tokenization, oldest first. Expires half a minute after the last
    call."""
    image_calls = Single("imagecalls")
    """LIST: waiting calls that need a worker that serves images. Otherwise like `calls`."""
    reply = Each[CallId]("reply")
    """LIST: the reply to a call for tokenization. Expires after half a minute."""
    upload = Each[UploadId]("upload")
    """HASH: files of an adapter that a client has sent, in pieces of at most 1 MiB.

    Expires unless a version is made from the upload. In that case, the key is deleted together
    with the version.
    """
    uploads_of = Each[str]("uploads")
    """ZSET: upload of the tenant -> its bytes.

    Uploads that expired are removed when the tenant has reached a limit.
    """
    file = Each[FileId]("file")
    """HASH: tenant, charged bytes, name, purpose, size and times of a file.

    During the upload, the key has only the tenant and the charged bytes. When the file is deleted,
    these two and the field `deleted` stay until the content is deleted. Then the key is deleted.
    """
    files = Single("files")
    """ZSET: file in the file store -> Unix time in ms from which its content is deleted.

    The set has every file with a record, even while the file is being uploaded.
    """
    files_of = Each[str]("files")
    """ZSET: file of the tenant -> Unix time in ms of its upload."""
    files_with = Each[[str, str]]("purpose")
    """ZSET: the members of `files_of` with one purpose, with the same scores.

    The names are the purpose and the tenant.
    """
    stored = Each[str]("stored")
    """HASH: number and bytes of the tenant's files with a record. Deleted with the last of them."""
    batch = Each[BatchId]("batch")
    """HASH: tenant, endpoint, files, status, times and counts of a batch. Expires some days after
    its end."""
    batches = Single("batches")
    """ZSET: batch that hasn't ended -> Unix time in ms at which it was accepted."""
    batches_of = Each[str]("batches")
    """ZSET: batch of the tenant -> Unix time in ms at which it was accepted.

    Expired batches are removed when the tenant has reached its limit. Expires with the last
    batch.
    """
    ended_batches = Single("endedbatches")
    """ZSET: ended batch -> Unix time in ms from which its parts in the file store are deleted.

    That time is later than the end, because another process may still write parts. The batch is
    removed when its parts were deleted.
    """
    turns = Single("turns")
    """ZSET: tenant with open batches -> its tag, as in start-time fair queueing.

    Tenants whose batches have ended are removed once their tag has no effect any more.
    """
    turns_of = Each[str]("turns")
    """ZSET: batch of the tenant that hasn't ended -> Unix time in ms of its next turn."""
    turning = Single("turning")
    """ZSET: batch that has a turn -> Unix time in ms at which its lease ends."""
    batch_lease = Each[BatchId]("batchlease")
    """STRING: number of the turn that the batch has. Expires unless it is renewed."""
    batch_done = Each[BatchId]("batchdone")
    """STRING: bitmap of the batch's lines that have ended. Deleted when the batch ends."""
    batch_parts = Each[BatchId]("batchparts")
    """LIST: objects in the file store with the results so far. Deleted when the batch ends."""
    webhooks = Single("webhooks")
    """ZSET: end of a batch that a webhook must announce -> Unix time in ms of the next try."""
    barrier = Single("barrier")
    """STRING: empty. Written after a write that must become durable. Expires after a minute.

    Redis waits only for copies of the connection's last write and of all writes before it. This
    write therefore covers all earlier writes of other connections.
    """
    base = Single("base")
    """HASH: name, version, context length, usage and further fields of the base model.

    The random field `epoch` changes when the registry has lost all adapters. Never deleted.
    """
    access_keys = Single("keys")
    """ZSET: id of a stored API key -> Unix time in ms at which it was created. Never deleted.

    Front ends require API keys as soon as this set exists, unless `keysopen` exists.
    """
    access_open = Single("keysopen")
    """STRING: Unix time in ms at which all API keys were revoked and the pool was opened again.

    Deleted when the next key is created.
    """
    access_key = Each[str]("key")
    """HASH: digest of a stored API key, its tenant, rights, limits and times. Never deleted.

    A revoked key stays, with the field `revoked_ms`.
    """
    rate = Each[str]("rate")
    """HASH: requests and tokens that an API key with limits has used in the current minute and day.

    `minute` and `day` are the numbers of these windows since the Unix epoch. `reserved` is the
    number of tokens that unfinished jobs may still use. Expires two days after the last request
    or publication.
    """
    ledger = Each[[int, str]]("ledger")
    """HASH: model -> requests, prompt, cached and completion tokens of a tenant on a UTC day.

    The names are the number of the day since the Unix epoch, and the tenant. Expires `usage_days`
    after the day.
    """
    ledger_tenants = Each[int]("ledgers")
    """SET: tenants with a ledger of the UTC day. Expires together with the ledgers."""
