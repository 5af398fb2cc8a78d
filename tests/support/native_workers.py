"""Worker processes with the native engine, as `lorikeet worker` starts them."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from servers import LORIKEET

from ops.commands.flags import to_argv


@contextmanager
def native_worker(
    redis_url: str,
    pool: str,
    base: Path,
    adapters: Mapping[str, Path] | None = None,
    **variables: str,
) -> Iterator["subprocess.Popen[str]"]:
    """Run a worker with little memory and a short lease, and kill it at exit.

    `variables` are added to its environment.
    """
    settings = {
        "redis_url": redis_url,
        "pool": pool,
        "dtype": "float32",
        "adapters": tuple(f"{name}={folder}" for name, folder in (adapters or {}).items()),
        "lease_ms": 1000,
        "kv_cache_mb": 64,
        "adapter_memory_mb": 64,
        "threads": 1,
    }
    argv = [str(LORIKEET), "worker", str(base), *to_argv(settings, list(settings))]
    process = subprocess.Popen(argv, env={**os.environ, **variables}, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
