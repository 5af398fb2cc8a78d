"""Every Redis key of a pool, with its type, content and lifetime.

A pool is one base model and its workers. All of its keys have the same hash tag. They are therefore
in the same slot of a Redis Cluster, and scripts may access any of them. A sorted set (ZSET) is
described as member -> score, and a HASH may be described as field -> value. A key without a stated
lifetime is deleted when it is empty.
"""

from dataclasses import dataclass

from shared.protocol.files import Purpose
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


@dataclass(frozen=True, slots=True)
class Keys:
    """Redis keys of one pool."""

    pool: str

    @property
    def prefix(self) -> str:
        """Prefix of every key of the pool. The scripts build the keys from it."""
        return f"{{lk:{self.pool}}}:"

    def job(self, job_id: JobId) -> str:
        """HASH: state, version, body and further fields of a job.

        The body is deleted when the job ends. The field `request` of a job with a view stays, since
        the answer repeats it.

        Expires `retain` milliseconds after the end of the job, or is deleted earlier because a
        client erased the job or too many bytes of answers were kept.
        """
        return f"{self.prefix}job:{job_id}"

    def result(self, job_id: JobId) -> str:
        """STRING: `Result` of a job in any final state.

        Expires `retain` milliseconds after the end of the job.
        """
        return f"{self.prefix}res:{job_id}"

    def queue(self, version: AdapterVersion) -> str:
        """ZSET: id of a waiting job -> tag of fair queueing minus priority boost."""
        return f"{self.prefix}q:{version}"

    def featured(self, version: AdapterVersion) -> str:
        """HASH: unfinished job of the version -> features that its worker must serve.

        Only jobs that need such a feature are in it. A field is deleted when its job ends.
        """
        return f"{self.prefix}featured:{version}"

    @property
    def ready(self) -> str:
        """ZSET: version with waiting jobs -> score of its first job."""
        return f"{self.prefix}ready"

    @property
    def cold(self) -> str:
        """ZSET: the members of `ready` that no live worker holds, with the same scores."""
        return f"{self.prefix}cold"

    def owned(self, worker: WorkerId) -> str:
        """ZSET: id of a running job of the worker -> random epoch of its claim.

        Each call of `claim` has its own epoch. Epochs don't repeat, even after a failover of Redis.
        """
        return f"{self.prefix}own:{worker}"

    def cancelled(self, worker: WorkerId) -> str:
        """SET: running jobs of the worker that clients have cancelled.

        A job is removed when it ends. The key expires a minute after the last cancellation.
        """
        return f"{self.prefix}cancelled:{worker}"

    def sent(self, worker: WorkerId) -> str:
        """LIST: last publications of the worker, one item each.

        Each line of an item is a copy of what was sent to one API process. The items contain every
        published token that isn't in a checkpoint. Deleted when the worker has finished all its
        jobs, when its jobs are handed over, and a day after the last publication.
        """
        return f"{self.prefix}sent:{worker}"

    def running(self, version: AdapterVersion) -> str:
        """SET: running jobs of the version."""
        return f"{self.prefix}run:{version}"

    @property
    def followers(self) -> str:
        """HASH: unfinished job -> API processes that follow it beside the one that accepted it.

        A field is deleted when its job ends.
        """
        return f"{self.prefix}followers"

    @property
    def apis(self) -> str:
        """ZSET: API process -> pool time in ms at which it last reported that it is alive.

        Each report removes the processes that have been silent for a day.
        """
        return f"{self.prefix}apis"

    @property
    def abandoned(self) -> str:
        """ZSET: unfinished job without clients -> pool time in ms at which it is cancelled."""
        return f"{self.prefix}abandoned"

    @property
    def ended(self) -> str:
        """ZSET: job id, kept bytes and tenant of an ended job -> Unix time in ms of its expiry."""
        return f"{self.prefix}ended"

    @property
    def kept(self) -> str:
        """ZSET: tenant -> bytes that are kept of its ended jobs."""
        return f"{self.prefix}kept"

    def jobs(self, tenant: str) -> str:
        """ZSET: job of the tenant -> Unix time in ms at which it was enqueued.

        A sweep removes expired jobs.
        """
        return f"{self.prefix}jobs:{tenant}"

    def idempotency(self, tenant: str, key_digest: str) -> str:
        """STRING: job of the first request with an idempotency key, and digest of its body.

        Expires together with the job.
        """
        return f"{self.prefix}idem:{tenant}:{key_digest}"

    @property
    def due(self) -> str:
        """ZSET: unfinished job -> its deadline, as pool time in milliseconds.

        Pool time is Redis' clock without its jumps and without periods in which Redis was
        unavailable.
        """
        return f"{self.prefix}due"

    @property
    def missing(self) -> str:
        """ZSET: worker whose lease has ended -> Unix time in ms at which a sweep noticed this."""
        return f"{self.prefix}missing"

    @property
    def lost(self) -> str:
        """ZSET: worker with jobs to hand over -> number of jobs, or -1 if the worker left."""
        return f"{self.prefix}lost"

    def charged(self, worker: WorkerId) -> str:
        """HASH: job -> deaths that were charged to the job when the worker was declared dead.

        Expires after an hour.
        """
        return f"{self.prefix}charged:{worker}"

    @property
    def capacity(self) -> str:
        """ZSET: worker -> capacity of its KV cache in tokens.

        The live workers of each class are in a set of their own, `capacity:CLASS`.
        """
        return f"{self.prefix}capacity"

    @property
    def classes(self) -> str:
        """SET: classes of the live workers that don't serve every job.

        A class is the text form of `Capabilities`.
        """
        return f"{self.prefix}classes"

    @property
    def doomed(self) -> str:
        """SET: quarantined versions whose waiting jobs must still be ended."""
        return f"{self.prefix}doomed"

    @property
    def workers(self) -> str:
        """ZSET: worker -> end of its lease, as Unix time in ms on Redis' clock."""
        return f"{self.prefix}workers"

    def worker(self, worker: WorkerId) -> str:
        """HASH: `WorkerInfo`, maximum sequences, class, last heartbeat, lease and last publication.

        Times are in ms. The last publication is a number, which counts the publications from 1. The
        field `served` has the totals that the last heartbeat reported, and `stalled` is set while
        the worker's engine seems to hang.
        Expires a minute after the last heartbeat.
        """
        return f"{self.prefix}w:{worker}"

    def residents(self, worker: WorkerId) -> str:
        """SET: versions that the worker holds.

        Deleted after the worker has left the pool or has been declared dead.
        """
        return f"{self.prefix}has:{worker}"

    def holders(self, version: AdapterVersion) -> str:
        """SET: workers that hold the version."""
        return f"{self.prefix}on:{version}"

    @property
    def idle(self) -> str:
        """ZSET: parked worker -> number of sequences that it has idle capacity for.

        A fraction is added that grows with its capacity for jobs that aren't preemptible.
        The parked workers of each class are in a set of their own, `idle:CLASS`.
        """
        return f"{self.prefix}idle"

    def mailbox(self, worker: WorkerId) -> str:
        """LIST: messages to the worker (`Mail`). Expires a minute after the last message."""
        return f"{self.prefix}wake:{worker}"

    def loading(self, version: AdapterVersion) -> str:
        """STRING: the only worker that may load this version. Expires unless it is renewed."""
        return f"{self.prefix}load:{version}"

    def tenant(self, tenant: str) -> str:
        """HASH: tags of fair queueing, number of waiting jobs and bytes of unfinished requests.

        Preemptible jobs have a tag of their own, `preemptible_tag`.

        Expires a day after the tenant's last job stopped waiting.
        """
        return f"{self.prefix}t:{tenant}"

    @property
    def counters(self) -> str:
        """HASH: counters of the pool. Never deleted.

        - Totals: jobs by final state, `retried` and `released` jobs, `workers_lost`, and
          `forgotten` versions.
        - Current values: number of `waiting` jobs, `bytes` of unfinished requests, and bytes of
          memory that the `kept` ended jobs need, with their limit, `retain_bytes`.
        - Fair queueing: virtual time (`vtime`), that of preemptible jobs (`preemptible_vtime`), and
          number of jobs enqueued so far (`arrivals`).
        - Moving average of the time from the claim of a job to its answer, in ms: `run_ms`. Moving
          average of the answered jobs per second (`rate`), as of the time `rated`.
        - Redis' memory: time of the last check (`memory_ms`), whether too much memory was in use
          (`memory_high`), and the limit (`max_memory`).
        - Number of previous versions that adapters keep (`keep_versions`).
        - Number of days for which the ledger is kept (`usage_days`).
        - Revision of the registry (`registry`): the time of its last change.
        - Maximum number of sequences of the last worker that has joined (`slots`).
        - Time of the last sample of the history (`sampled`).
        - Clock: time of the last sweep (`swept`), and how far pool time lags behind Redis' clock
          (`lag`). A gap between two sweeps increases the lag if the gap is longer than `stall_ms`.
          `resumed` is the time of the first sweep after the last such gap, or after the clock last
          jumped by more than `stall_ms`.
        """
        return f"{self.prefix}cnt"

    @property
    def served(self) -> str:
        """HASH: totals of all workers: output `tokens`, and first tokens by bucket. Never deleted.

        Heartbeats add to them. The buckets are `first_0`, `first_1`, and so on.
        """
        return f"{self.prefix}served"

    @property
    def history(self) -> str:
        """LIST: samples of the pool's totals, about one per second, newest first: 300 at most.

        Sweeps add them. Expires ten minutes after the last one.
        """
        return f"{self.prefix}history"

    @property
    def incidents(self) -> str:
        """STREAM: about the 200 newest incidents, such as the loss of a worker. Never deleted."""
        return f"{self.prefix}incidents"

    def replies(self, api: ApiId) -> str:
        """STREAM: events for one API process that it hasn't read yet, of at most a minute.

        Expires two minutes after it was last renewed or written.
        """
        return f"{self.prefix}out:{api}"

    def checkpoints(self, job_id: JobId) -> str:
        """STREAM: published tokens of a job.

        The worker adds an entry every 16 tokens or 250 ms, and a handover adds the missing tokens.
        Deleted when the job is done. Expires with the job's record if it ends otherwise.
        """
        return f"{self.prefix}tok:{job_id}"

    def control(self, host: str) -> str:
        """STRING: arq's counters for the control process of one host. Expires unless renewed."""
        return f"{self.prefix}control:{host}"

    @property
    def scheduler(self) -> str:
        """ZSET: due task of the control processes -> Unix time in ms at which it is due."""
        return f"{self.prefix}arq"

    @property
    def audit(self) -> str:
        """HASH: position and results of the audit that control processes run in small steps.

        Expires an hour after the last step.
        """
        return f"{self.prefix}audit"

    @property
    def dead(self) -> str:
        """STREAM: about the 10,000 newest dead letters, with their jobs.

        The control process deletes old letters.
        """
        return f"{self.prefix}dead"

    @property
    def reported(self) -> str:
        """STRING: id of the newest dead letter that a control process has logged.

        Expires a month after a control process last looked for new letters.
        """
        return f"{self.prefix}reported"

    @property
    def adapters(self) -> str:
        """SET: registered adapter names. Deleted when the base model changes."""
        return f"{self.prefix}adapters"

    def adapter(self, name: str) -> str:
        """HASH: current version of the name, and whether a client or a worker set it.

        Deleted when the base model changes. If the name was unloaded, the version is empty. The key
        of an unloaded name expires after an hour, except if a worker was started with the name. In
        that case, the key is kept so that a restart of the worker doesn't register the name again.
        The fields that begin with `candidate` hold the `Share` of the candidate version.
        """
        return f"{self.prefix}adapter:{name}"

    @property
    def pins(self) -> str:
        """HASH: pinned adapter name -> minimum number of workers that hold its current version.

        A field is deleted when the name is unloaded or the base model changes.
        """
        return f"{self.prefix}pins"

    def pin_load(self, version: AdapterVersion) -> str:
        """STRING: exists while a worker loads a pinned version. Expires after half a minute."""
        return f"{self.prefix}pinload:{version}"

    @property
    def changes(self) -> str:
        """STREAM: the audit log, about 10,000 newest changes of adapters and API keys.

        Never deleted.
        """
        return f"{self.prefix}changes"

    @property
    def shadows(self) -> str:
        """ZSET: ids of a job and of its shadow's copy -> Unix time in ms at which it was copied.

        The control process compares the answers and removes the pair.
        """
        return f"{self.prefix}shadows"

    def compared(self, version: AdapterVersion) -> str:
        """HASH: `Comparison` of a candidate version. Deleted when its trial ends."""
        return f"{self.prefix}compared:{version}"

    def differing(self, version: AdapterVersion) -> str:
        """LIST: the 100 newest `PairReport`s of a candidate's pairs that differ, newest first.

        Deleted when its trial ends.
        """
        return f"{self.prefix}differing:{version}"

    def previous(self, name: str) -> str:
        """LIST: previous versions of the name, in the order of rollbacks."""
        return f"{self.prefix}previous:{name}"

    def version(self, version: AdapterVersion) -> str:
        """HASH: digests, source, rank, state and usage of a version.

        Deleted when no name and no waiting or running job refers to the version.
        """
        return f"{self.prefix}version:{version}"

    @property
    def needs(self) -> str:
        """HASH: version -> what its jobs need of a worker, as text form of `Needs`.

        A field is deleted together with the version.
        """
        return f"{self.prefix}needs"

    @property
    def retired(self) -> str:
        """ZSET: version without a name -> Unix time in ms at which it lost its name."""
        return f"{self.prefix}retired"

    @property
    def quarantined(self) -> str:
        """ZSET: quarantined version -> Unix time in ms at which it was quarantined."""
        return f"{self.prefix}quarantined"

    def inspection(self, inspection: InspectionId) -> str:
        """STRING: an `Inspection`. Deleted when a worker takes it, or after a minute."""
        return f"{self.prefix}inspect:{inspection}"

    def findings(self, inspection: InspectionId) -> str:
        """LIST: the worker's confirmation of an inspection, then its `Findings`.

        Expires a minute after the last entry was written.
        """
        return f"{self.prefix}found:{inspection}"

    def staging(self, name: str) -> str:
        """STRING: `Staging` of an adapter that a worker fetches from a URL.

        Deleted when the adapter was read. Expires ten seconds after the last progress.
        """
        return f"{self.prefix}staging:{name}"

    def lookup(self, name: str) -> str:
        """STRING: `looking` while a front end looks up an unknown adapter, or the lookup's error.

        Deleted when the adapter is registered. The word expires after ten seconds unless the front
        end renews it, an error after half a minute.
        """
        return f"{self.prefix}lookup:{name}"

    @property
    def calls(self) -> str:
        """LIST: calls for tokenization, oldest first, until a worker takes them.

        Expires half a minute after the last call was added.
        """
        return f"{self.prefix}calls"

    def reply(self, call: CallId) -> str:
        """LIST: the reply to a call for tokenization. Expires after half a minute."""
        return f"{self.prefix}reply:{call}"

    def upload(self, upload: UploadId) -> str:
        """HASH: files of an adapter that a client has sent, in pieces of at most 1 MiB.

        Expires unless a version is registered that was made from it. Then it is deleted together
        with the version.
        """
        return f"{self.prefix}upload:{upload}"

    def uploads_of(self, tenant: str) -> str:
        """ZSET: upload of the tenant -> its bytes.

        Uploads that expired are removed when the tenant has reached a limit.
        """
        return f"{self.prefix}uploads:{tenant}"

    def file(self, file_id: FileId) -> str:
        """HASH: tenant, charged bytes, name, purpose, size and times of a file.

        An upload has only the first two. They also stay when the file is deleted, with the field
        `deleted`, until its content is deleted. Then the key is deleted.
        """
        return f"{self.prefix}file:{file_id}"

    @property
    def files(self) -> str:
        """ZSET: file in the file store -> Unix time in ms from which its content is deleted.

        It has every file with a record, also those that are being uploaded.
        """
        return f"{self.prefix}files"

    def files_of(self, tenant: str) -> str:
        """ZSET: file of the tenant -> Unix time in ms of its upload."""
        return f"{self.prefix}files:{tenant}"

    def files_with(self, purpose: Purpose, tenant: str) -> str:
        """ZSET: the members of `files_of` with one purpose, with the same scores."""
        return f"{self.prefix}purpose:{purpose}:{tenant}"

    def stored(self, tenant: str) -> str:
        """HASH: number and bytes of the tenant's files that have a record.

        Deleted with the last of them.
        """
        return f"{self.prefix}stored:{tenant}"

    def batch(self, batch_id: BatchId) -> str:
        """HASH: tenant, endpoint, files, status, times and counts of a batch.

        Expires some days after the end of the batch, like its output files.
        """
        return f"{self.prefix}batch:{batch_id}"

    @property
    def batches(self) -> str:
        """ZSET: batch that hasn't ended -> Unix time in ms at which it was accepted."""
        return f"{self.prefix}batches"

    def batches_of(self, tenant: str) -> str:
        """ZSET: batch of the tenant -> Unix time in ms at which it was accepted.

        Expired batches are removed when the tenant has reached its limit. Expires with the last
        batch.
        """
        return f"{self.prefix}batches:{tenant}"

    @property
    def ended_batches(self) -> str:
        """ZSET: ended batch -> Unix time in ms from which its parts in the file store are deleted.

        Another process may still write some when the batch ends. Then the batch is removed.
        """
        return f"{self.prefix}endedbatches"

    @property
    def turns(self) -> str:
        """ZSET: tenant with open batches -> its tag, as in start-time fair queueing.

        Tenants whose batches have ended are removed once their tag no longer counts.
        """
        return f"{self.prefix}turns"

    def turns_of(self, tenant: str) -> str:
        """ZSET: batch of the tenant that hasn't ended -> Unix time in ms of its next turn."""
        return f"{self.prefix}turns:{tenant}"

    @property
    def turning(self) -> str:
        """ZSET: batch that has a turn -> Unix time in ms at which its lease ends."""
        return f"{self.prefix}turning"

    def batch_lease(self, batch_id: BatchId) -> str:
        """STRING: number of the turn that the batch has. Expires unless it is renewed."""
        return f"{self.prefix}batchlease:{batch_id}"

    def batch_done(self, batch_id: BatchId) -> str:
        """STRING: bitmap of the batch's lines that have ended. Deleted when the batch ends."""
        return f"{self.prefix}batchdone:{batch_id}"

    def batch_parts(self, batch_id: BatchId) -> str:
        """LIST: objects in the file store with the results so far. Deleted when the batch ends."""
        return f"{self.prefix}batchparts:{batch_id}"

    @property
    def webhooks(self) -> str:
        """ZSET: end of a batch that is still to be announced -> Unix time in ms of the next try."""
        return f"{self.prefix}webhooks"

    @property
    def barrier(self) -> str:
        """STRING: empty. Written after a write that must become durable.

        Redis waits only for copies of the connection's last write and of all writes before it. This
        write therefore covers all earlier writes of other connections. Expires after a minute.
        """
        return f"{self.prefix}barrier"

    @property
    def base(self) -> str:
        """HASH: name, version, context length, usage and further fields of the base model.

        Never deleted.

        Its random `epoch` changes when the registry has lost all adapters.
        """
        return f"{self.prefix}base"

    @property
    def access_keys(self) -> str:
        """ZSET: id of a stored API key -> Unix time in ms at which it was created. Never deleted.

        Front ends demand a key as soon as this exists.
        """
        return f"{self.prefix}keys"

    def access_key(self, key_id: str) -> str:
        """HASH: digest of a stored API key, its tenant, rights, limits and times. Never deleted.

        A revoked key stays, with the field `revoked_ms`.
        """
        return f"{self.prefix}key:{key_id}"

    def rate(self, key_id: str) -> str:
        """HASH: requests and tokens that an API key with limits has used in a minute and in a day.

        `minute` and `day` are the numbers of these windows since the Unix epoch. `reserved` is the
        number of tokens that unfinished jobs may still use. Expires two days after the last request
        or publication.
        """
        return f"{self.prefix}rate:{key_id}"

    def ledger(self, day: int, tenant: str) -> str:
        """HASH: model -> requests, prompt, cached and completion tokens of a tenant on a UTC day.

        `day` is the number of the day since the Unix epoch. Expires `usage_days` after the day.
        """
        return f"{self.prefix}ledger:{day}:{tenant}"

    def ledger_tenants(self, day: int) -> str:
        """SET: tenants with a ledger of the UTC day. Expires together with the ledgers."""
        return f"{self.prefix}ledgers:{day}"
