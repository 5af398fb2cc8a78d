"""Command lines of the processes of a pool under test. Does no I/O."""

import sys
from collections.abc import Mapping

from ops.lab.chaos.options import Options

LEASE_MS = 3000
STALL_S = 3.0
DISCONNECT_GRACE_S = 20.0
"""Seconds after a disconnection in which the client must come back, or its job is cancelled.

A client needs up to 13 seconds to notice that a front end hangs. It then comes back to another
front end.
"""
DRAIN_S = 2.0
"""Seconds after SIGTERM in which a front end's streams, or a worker's jobs, may still end."""
MAX_NUM_SEQS = 64
ADAPTER_MIB = 16
"""Memory of each worker for adapters, in MiB. A simulated adapter takes 1 MiB."""
SLOWEST = 1.5
"""Step time of the slowest simulated worker, in multiples of the mean.

Workers of different speeds are a harder test. A fast worker that loses its jobs without noticing
would publish more tokens than the slow worker that continues them.
"""
BASE = "base"
"""Name of the base model."""


def adapter_sources(options: Options) -> dict[str, str]:
    """Return the source of each adapter, by name."""
    return {f"adapter-{i}": f"source-{i}" for i in range(options.adapters)}


def worker_argv(*words: str) -> list[str]:
    """Return the command of a worker that hangs after the signal `HOLD_GIL`."""
    return [sys.executable, "-P", "-m", "ops.lab.chaos.cluster.worker_process", *words]


def worker_words(options: Options, number: int) -> list[str]:
    """Return the arguments of worker `number`, from 0."""
    flags: dict[str, object] = {
        "--engine": "simulated",
        "--lease-ms": LEASE_MS,
        "--stall-s": STALL_S,
        "--drain-s": DRAIN_S,
        "--max-num-seqs": MAX_NUM_SEQS,
        "--simulated-step-ms": _step_ms(options, number),
        "--log-level": "debug",  # the check of timelines needs the claims in the log
        "--adapter-memory-mb": ADAPTER_MIB,
        "--adapter-host-mb": ADAPTER_MIB,
    }
    sources = adapter_sources(options)
    adapters = ["--adapters", *(f"{name}={source}" for name, source in sources.items())]
    return ["worker", BASE, *_words(flags), *(adapters if sources else [])]


def api_words(options: Options, host: str, port: int) -> list[str]:
    """Return the arguments of the front end that listens on `host` and `port`."""
    flags: dict[str, object] = {
        "--host": host,
        "--port": port,
        "--retain-s": options.retain_s,
        "--disconnect-grace-s": DISCONNECT_GRACE_S,
        "--drain-s": DRAIN_S,
    }
    return ["api", *_words(flags), "--allow-anonymous"]


def pool_words(options: Options, redis_url: str) -> list[str]:
    """Return the arguments that every process of the pool has."""
    return ["--redis-url", redis_url, "--durability", options.durability]


def _step_ms(options: Options, number: int) -> int:
    """Return the step time of worker `number` in milliseconds.

    The times of all workers are spaced around the mean. Worker 0 has the shortest one.
    """
    share = number / max(1, options.workers - 1)
    return round(options.step_ms * (2 - SLOWEST + share * 2 * (SLOWEST - 1)))


def _words(flags: Mapping[str, object]) -> list[str]:
    return [str(word) for flag in flags.items() for word in flag]
