"""The metrics of vLLM that gateways read, computed for a whole pool.

Gateways choose a server by its queue, its KV cache and its adapters. A front end serves the whole
pool, so the values are totals over all workers.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nsmallest

from prometheus_client.core import GaugeMetricFamily, Metric

from shared.protocol.adapters import BaseModel
from shared.protocol.ids import name_of
from shared.store.views.pool_views import QueueCounts, WorkerView

MAX_LISTED = 20
"""Maximum number of adapters in one label."""
_KV_NAMES = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""The current and the earlier name of the same metric."""


def vllm_metrics(
    base: BaseModel, counts: QueueCounts, workers: Sequence[WorkerView], *, now_s: float
) -> Iterator[Metric]:
    """Return vLLM's metrics for a pool. `now_s` is the current Unix time in seconds."""
    alive = [worker for worker in workers if worker.lease_left_ms > 0]
    running = sum(worker.running for worker in alive)
    yield _gauge(base, "vllm:num_requests_waiting", "Jobs in the queue", counts.waiting)
    yield _gauge(base, "vllm:num_requests_running", "Jobs claimed by live workers", running)
    blocks = sum(worker.info.kv_blocks for worker in alive)
    if blocks:
        used = 1 - sum(worker.info.kv_blocks_free for worker in alive) / blocks
        for name in _KV_NAMES:
            yield _gauge(base, name, "Used part of the live workers' KV cache, from 0 to 1", used)
    yield _lora_info(base, counts, alive, now_s=now_s)


def _lora_info(
    base: BaseModel, counts: QueueCounts, alive: Sequence[WorkerView], *, now_s: float
) -> Metric:
    """Return the metric whose labels list adapters. Its value is the Unix time, as in vLLM."""
    waiting: Counter[str] = Counter()
    for version, number in counts.waiting_by_version.items():
        if version != base.version:
            waiting[name_of(version)] += number
    resident = Counter(
        name for w in alive for name in {name_of(v) for v in w.residents if v != base.version}
    )
    metric = GaugeMetricFamily(
        "vllm:lora_requests_info",
        "Adapters on live workers (running) and with jobs in the queue (waiting), at most "
        f"{MAX_LISTED} each; the value is the time",
        labels=("model_name", "max_lora", "running_lora_adapters", "waiting_lora_adapters"),
    )
    max_lora = sum(worker.info.max_num_seqs for worker in alive)
    running_names = _first(resident, key=lambda name: (-waiting[name], -resident[name], name))
    waiting_names = _first(waiting, key=lambda name: (-waiting[name], name))
    metric.add_metric((base.name, str(max_lora), running_names, waiting_names), now_s)
    return metric


def _gauge(base: BaseModel, name: str, text: str, value: float) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=("model_name",))
    metric.add_metric((base.name,), value)
    return metric


def _first(names: Iterable[str], key: Callable[[str], tuple[int | str, ...]]) -> str:
    """Return the `MAX_LISTED` names with the smallest keys, joined in alphabetical order.

    Equal sets of names therefore give equal texts.
    """
    return ",".join(sorted(nsmallest(MAX_LISTED, names, key=key)))
