"""Every Redis key, with its type, content and lifetime.

A pool is one base model and its workers. All of its keys have the same hash tag, so that they are
in one slot of a Redis Cluster and scripts may access any of them.
"""

from dataclasses import dataclass

from shared.protocol.ids import AdapterVersion, ApiId, InspectionId, JobId, WorkerId


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one pool."""

    pool: str

    @property
    def prefix(self) -> str:
        """Prefix of every key of the pool, from which the scripts build the keys."""
        return f"{{lk:{self.pool}}}:"

    def job(self, job_id: JobId) -> str:
        """HASH: state, version, body, ... of a job; until `retain` after its end."""
        return f"{self.prefix}job:{job_id}"

    def result(self, job_id: JobId) -> str:
        """STRING: `Result` of a job that has ended in any way; until `retain` after its end."""
        return f"{self.prefix}res:{job_id}"

    def queue(self, version: AdapterVersion) -> str:
        """ZSET: waiting job ids -> fair tag - priority boost; deleted when empty."""
        return f"{self.prefix}q:{version}"

    @property
    def ready(self) -> str:
        """ZSET: version with waiting jobs -> score of the first one."""
        return f"{self.prefix}ready"

    @property
    def cold(self) -> str:
        """ZSET: those members of `ready` that no live worker holds."""
        return f"{self.prefix}cold"

    def owned(self, worker: WorkerId) -> str:
        """ZSET: running job ids -> the random epochs of their claims; deleted when empty.

        A failover of Redis can't repeat an epoch, so epochs identify the owner of a job even then.
        """
        return f"{self.prefix}own:{worker}"

    def cancelled(self, worker: WorkerId) -> str:
        """SET: running jobs that their clients cancelled; until they end, at most a minute."""
        return f"{self.prefix}cancelled:{worker}"

    def sent(self, worker: WorkerId) -> str:
        """LIST: the worker's last publications, as lines of API process and stream entry.

        They contain every published token that isn't in a checkpoint. Until the worker's jobs are
        handed over.
        """
        return f"{self.prefix}sent:{worker}"

    def running(self, version: AdapterVersion) -> str:
        """SET: running jobs of the version; deleted when empty."""
        return f"{self.prefix}run:{version}"

    @property
    def due(self) -> str:
        """ZSET: unfinished jobs -> their deadlines in pool time, in ms."""
        return f"{self.prefix}due"

    @property
    def missing(self) -> str:
        """ZSET: workers whose leases have ended -> time at which a sweep noticed it."""
        return f"{self.prefix}missing"

    @property
    def lost(self) -> str:
        """ZSET: workers whose jobs aren't handed over yet -> number of jobs, or -1 if it left."""
        return f"{self.prefix}lost"

    def charged(self, worker: WorkerId) -> str:
        """HASH: job -> deaths charged to it when the worker was given up; for an hour."""
        return f"{self.prefix}charged:{worker}"

    @property
    def capacity(self) -> str:
        """ZSET: worker -> capacity of its KV cache in tokens."""
        return f"{self.prefix}capacity"

    @property
    def doomed(self) -> str:
        """SET: quarantined versions whose waiting jobs aren't all ended yet."""
        return f"{self.prefix}doomed"

    @property
    def workers(self) -> str:
        """ZSET: worker -> end of its lease in ms of Redis' clock."""
        return f"{self.prefix}workers"

    def worker(self, worker: WorkerId) -> str:
        """HASH: `WorkerInfo`, most sequences, time of the last heartbeat, lease; in ms.

        Until a minute after the last heartbeat.
        """
        return f"{self.prefix}w:{worker}"

    def residents(self, worker: WorkerId) -> str:
        """SET: versions that the worker holds; until it is given up."""
        return f"{self.prefix}has:{worker}"

    def holders(self, version: AdapterVersion) -> str:
        """SET: workers that hold the version; deleted when empty."""
        return f"{self.prefix}on:{version}"

    @property
    def idle(self) -> str:
        """ZSET: parked workers -> number of sequences that they have capacity for."""
        return f"{self.prefix}idle"

    def mailbox(self, worker: WorkerId) -> str:
        """LIST: messages to the worker, see `Mail`; until a minute after the last one."""
        return f"{self.prefix}wake:{worker}"

    def loading(self, version: AdapterVersion) -> str:
        """STRING: the only worker that loads this version; expires unless it is renewed."""
        return f"{self.prefix}load:{version}"

    def tenant(self, tenant: str) -> str:
        """HASH: fair tag, waiting jobs and their bytes; until a day after the last one waited."""
        return f"{self.prefix}t:{tenant}"

    @property
    def counters(self) -> str:
        """HASH: counters of the pool; never deleted.

        Total jobs by final state, and jobs `retried` and `released`, `workers_lost` and versions
        `forgotten`. Number of `waiting` jobs and `bytes` of unfinished requests. Virtual time
        `vtime` of fair queueing, number of `arrivals`, mean duration `run_ms` of a job. Redis'
        memory as `enqueue` last measured it. Time of the last sweep (`swept`), by how much pool
        time lags behind Redis' clock (`lag`), time at which the lag last grew (`resumed`), and
        shortest gap between sweeps that makes it grow (`stall_ms`).
        """
        return f"{self.prefix}cnt"

    def replies(self, api: ApiId) -> str:
        """STREAM: events of the last minute for one API process.

        Until two minutes after the process last renewed it.
        """
        return f"{self.prefix}out:{api}"

    def checkpoints(self, job_id: JobId) -> str:
        """STREAM: published tokens of a job; until ten minutes after its end.

        The worker writes them every 16 tokens or 250 ms. A handover adds the missing ones.
        """
        return f"{self.prefix}tok:{job_id}"

    def control(self, host: str) -> str:
        """STRING: arq's counters of a host's control process; expires unless it is renewed."""
        return f"{self.prefix}control:{host}"

    @property
    def dead(self) -> str:
        """STREAM: about the newest 10,000 dead letters, with their jobs."""
        return f"{self.prefix}dead"

    @property
    def adapters(self) -> str:
        """SET: registered adapter names; until the base model changes."""
        return f"{self.prefix}adapters"

    def adapter(self, name: str) -> str:
        """HASH: current version of the name, and whether a client or a worker set it.

        Until the base model changes. The version of an unloaded name is empty, and its key expires
        after an hour. It never expires if a worker was started with the name, so that a restart of
        the worker doesn't register the name again.
        """
        return f"{self.prefix}adapter:{name}"

    def previous(self, name: str) -> str:
        """LIST: previous versions of the name, in the order of rollbacks."""
        return f"{self.prefix}previous:{name}"

    def version(self, version: AdapterVersion) -> str:
        """HASH: digests, source, rank, state and usage of a version.

        Until neither its name nor a waiting or running job refers to it.
        """
        return f"{self.prefix}version:{version}"

    @property
    def retired(self) -> str:
        """ZSET: versions without a name -> time in ms at which they lost it."""
        return f"{self.prefix}retired"

    def inspection(self, inspection: InspectionId) -> str:
        """STRING: an `Inspection`; until a worker takes it, at most a minute."""
        return f"{self.prefix}inspect:{inspection}"

    def findings(self, inspection: InspectionId) -> str:
        """LIST: confirmation by the worker, then its `Findings`; until a minute after the last."""
        return f"{self.prefix}found:{inspection}"

    @property
    def barrier(self) -> str:
        """STRING: empty, written after a write that has to become durable; for a minute."""
        return f"{self.prefix}barrier"

    @property
    def base(self) -> str:
        """HASH: name, version, context length, ... of the pool's base model; never deleted.

        Its `epoch` is random, and changes when the registry has lost all adapters.
        """
        return f"{self.prefix}base"
