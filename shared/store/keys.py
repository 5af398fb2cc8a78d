"""Every Redis key, with its type, content and lifetime.

A pool is one base model and its workers. All its keys share one hash tag, so that a pool lies
in one Redis Cluster slot and the scripts may touch any of them.
"""

from dataclasses import dataclass

from shared.protocol.ids import AdapterVersion, ApiId, InspectionId, JobId, WorkerId


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one pool."""

    pool: str

    @property
    def prefix(self) -> str:
        """Starts every key of the pool; the scripts build the others from it."""
        return f"{{lk:{self.pool}}}:"

    def job(self, job_id: JobId) -> str:
        """HASH: state, version, body, ...; until it ends, then `retain`."""
        return f"{self.prefix}job:{job_id}"

    def result(self, job_id: JobId) -> str:
        """STRING: the `Result`, however the job ended; `retain` after the end."""
        return f"{self.prefix}res:{job_id}"

    def queue(self, version: AdapterVersion) -> str:
        """ZSET: waiting job ids, score = fair tag - priority boost; gone when empty."""
        return f"{self.prefix}q:{version}"

    @property
    def ready(self) -> str:
        """ZSET: version -> score of its queue's head, non-empty queues only."""
        return f"{self.prefix}ready"

    @property
    def cold(self) -> str:
        """ZSET: the part of `ready` that no live worker holds."""
        return f"{self.prefix}cold"

    def owned(self, worker: WorkerId) -> str:
        """ZSET: running job ids -> the random epochs of their claims; gone when empty.

        No rollback of Redis repeats an epoch, so it tells whose a job is after a failover, too.
        """
        return f"{self.prefix}own:{worker}"

    def cancelled(self, worker: WorkerId) -> str:
        """SET: running jobs that their clients cancelled; until they end, or a minute."""
        return f"{self.prefix}cancelled:{worker}"

    def sent(self, worker: WorkerId) -> str:
        """LIST: the worker's last publications, as lines of API process and entry.

        Tokens that stand in no checkpoint stand in one of these. Until the worker is settled.
        """
        return f"{self.prefix}sent:{worker}"

    def running(self, version: AdapterVersion) -> str:
        """SET: running jobs of the version; gone when empty."""
        return f"{self.prefix}run:{version}"

    @property
    def due(self) -> str:
        """ZSET: jobs that haven't ended -> their deadlines in pool time, in ms."""
        return f"{self.prefix}due"

    @property
    def missing(self) -> str:
        """ZSET: worker whose lease has ended -> when a sweep found that."""
        return f"{self.prefix}missing"

    @property
    def lost(self) -> str:
        """ZSET: worker whose jobs aren't handed on yet -> its jobs when given up, -1: it left."""
        return f"{self.prefix}lost"

    def charged(self, worker: WorkerId) -> str:
        """HASH: job -> the deaths it was charged with when the worker was given up; an hour."""
        return f"{self.prefix}charged:{worker}"

    @property
    def capacity(self) -> str:
        """ZSET: worker -> the tokens that its KV cache holds."""
        return f"{self.prefix}capacity"

    @property
    def doomed(self) -> str:
        """SET: quarantined versions whose waiting jobs are being ended."""
        return f"{self.prefix}doomed"

    @property
    def workers(self) -> str:
        """ZSET: worker -> end of its lease in ms, by Redis' clock."""
        return f"{self.prefix}workers"

    def worker(self, worker: WorkerId) -> str:
        """HASH: info (JSON), its most sequences, beat and lease (ms); a minute after the last."""
        return f"{self.prefix}w:{worker}"

    def residents(self, worker: WorkerId) -> str:
        """SET: versions that the worker holds; until it is reaped."""
        return f"{self.prefix}has:{worker}"

    def holders(self, version: AdapterVersion) -> str:
        """SET: workers that hold the version; gone when empty."""
        return f"{self.prefix}on:{version}"

    @property
    def idle(self) -> str:
        """ZSET: parked worker -> its free sequences."""
        return f"{self.prefix}idle"

    def mailbox(self, worker: WorkerId) -> str:
        """LIST: messages to the actor, as `Mail` lists them; a minute after the last."""
        return f"{self.prefix}wake:{worker}"

    def loading(self, version: AdapterVersion) -> str:
        """STRING: the one worker that loads this version for all; expires by itself."""
        return f"{self.prefix}load:{version}"

    def tenant(self, tenant: str) -> str:
        """HASH: fair tag, waiting, bytes; a day after nothing of the tenant waits any more."""
        return f"{self.prefix}t:{tenant}"

    @property
    def counters(self) -> str:
        """HASH: for ever.

        Totals by final state, and of jobs `retried` and `released`, of `workers_lost` and versions
        `forgotten`; jobs `waiting` and `bytes` of unfinished requests; the virtual time `vtime`,
        arrivals, the mean `run_ms` of a job; what `enqueue` last saw of Redis' memory; and of the
        sweep: when it last came (`swept`), by how much pool time lags behind Redis' clock (`lag`),
        when that last grew (`resumed`), and the gap that makes it grow (`stall_ms`).
        """
        return f"{self.prefix}cnt"

    def replies(self, api: ApiId) -> str:
        """STREAM: events for one API process, trimmed to a minute; two minutes after the last."""
        return f"{self.prefix}out:{api}"

    def checkpoints(self, job_id: JobId) -> str:
        """STREAM: tokens shown so far; ten minutes after the end.

        Written by the worker every 16 tokens or 250 ms, and completed by the script that takes
        the job from it.
        """
        return f"{self.prefix}tok:{job_id}"

    def control(self, host: str) -> str:
        """STRING: what a control process of this host has done; seconds after its last sign."""
        return f"{self.prefix}control:{host}"

    @property
    def dead(self) -> str:
        """STREAM: dead letters with their jobs, the newest 10,000 or so."""
        return f"{self.prefix}dead"

    @property
    def adapters(self) -> str:
        """SET: registered adapter names; until the base model changes."""
        return f"{self.prefix}adapters"

    def adapter(self, name: str) -> str:
        """HASH: the version that the name has now, and who decided so; until the base changes.

        Of a name that was unloaded the version is empty: for an hour, or for ever if a worker was
        started with the name, which must not come back by itself.
        """
        return f"{self.prefix}adapter:{name}"

    def previous(self, name: str) -> str:
        """LIST: versions that the name had before, in the order in which rollbacks reach them."""
        return f"{self.prefix}previous:{name}"

    def version(self, version: AdapterVersion) -> str:
        """HASH: digests, source, rank, ... of a version, its state and what it was used for.

        For as long as its name refers to it, or a job that waits or runs.
        """
        return f"{self.prefix}version:{version}"

    @property
    def retired(self) -> str:
        """ZSET: versions that no name refers to any more -> since when in ms."""
        return f"{self.prefix}retired"

    def inspection(self, inspection: InspectionId) -> str:
        """STRING: what a worker is asked to read; until one takes it, a minute at most."""
        return f"{self.prefix}inspect:{inspection}"

    def findings(self, inspection: InspectionId) -> str:
        """LIST: the worker that took it, then what it found; a minute after the last."""
        return f"{self.prefix}found:{inspection}"

    @property
    def barrier(self) -> str:
        """STRING: empty; written behind what has to be durable; a minute after the last."""
        return f"{self.prefix}barrier"

    @property
    def base(self) -> str:
        """HASH: name, version, context length of the pool's base model; for ever.

        Its `epoch` is drawn anew whenever the registry begins without adapters.
        """
        return f"{self.prefix}base"
