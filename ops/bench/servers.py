"""The servers that take turns: Lorikeet as its users start it, and vLLM for CPUs.

Both serve the base model as `BASE` and use all cores. vLLM lives in a virtual environment of its
own; `ops/docs/benchmarks.md` says how to make it.
"""

import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ops.bench.make_adapters import MAX_RANK
from ops.bench.processes import (
    Serving,
    clean_environment,
    free_port,
    process,
    wait_until_serves,
)
from ops.local.embedded_redis import start_redis
from shared.errors import SettingsError

BASE = "base"
"""What the base model is served as."""
START_TIMEOUT_S = 180.0
START_TIMEOUT_PER_ADAPTER_S = 0.1
"""Each is read and checked before the worker serves."""
VLLM_START_TIMEOUT_S = 900.0
"""It compiles for minutes at its first start."""
VLLM_MAX_MODEL_LEN = "2048"
VLLM_KV_CACHE_GIB = "4"


@contextmanager
def lorikeet(
    model: Path, adapters: Mapping[str, Path], scratch: Path, worker_flags: Sequence[str] = ()
) -> Iterator[Serving]:
    """Serve the model and its adapters by name until the block ends: Redis, worker and front end.

    `scratch` takes the data of Redis, copies of adapters and the logs.

    Raises:
        ServerFailed: it didn't get ready.
    """
    with ExitStack() as stack:
        redis = start_redis(scratch / "redis")
        stack.callback(redis.stop)
        common = ["--redis-url", redis.url, "--log-level", "warning"]
        program = str(Path(sysconfig.get_path("scripts")) / "lorikeet")
        served = ["--model", str(model), "--served-name", BASE]
        served += ["--adapters", *_named(adapters)] if adapters else []
        stored = ["--adapter-store", str(scratch / "adapter-store")]
        port = free_port()
        commands = {
            "worker": [program, "worker", *served, *stored, *worker_flags, *common],
            "api": [program, "api", "--port", str(port), *common],
        }
        started = {
            name: stack.enter_context(process(name, command, scratch, clean_environment()))
            for name, command in commands.items()
        }
        url = f"http://127.0.0.1:{port}"
        wait_until_serves(
            url,
            ready="/ready",
            names={BASE, *adapters},
            started=list(started.values()),
            timeout_s=START_TIMEOUT_S + START_TIMEOUT_PER_ADAPTER_S * len(adapters),
            scratch=scratch,
        )
        pids = {name: one.pid for name, one in started.items()}
        yield Serving(f"{url}/v1", {**pids, "redis": redis.pid})


@contextmanager
def vllm(venv: Path, model: Path, adapters: Mapping[str, Path], scratch: Path) -> Iterator[Serving]:
    """Serve the same with the vLLM that is installed in `venv`, as fast as it goes on CPUs.

    Raises:
        ServerFailed: it didn't get ready.
    """
    port = free_port()
    command = [
        str(venv.absolute() / "bin" / "vllm"), "serve", str(model),
        "--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "bfloat16", "--max-model-len", VLLM_MAX_MODEL_LEN,
        "--enable-lora", "--max-loras", str(len(adapters)), "--max-lora-rank", str(MAX_RANK),
        "--lora-modules", *_named(adapters), "--no-enable-prefix-caching", "-O3",
    ]  # fmt: skip
    with process("vllm", command, scratch, _vllm_environment(venv)) as started:
        url = f"http://127.0.0.1:{port}"
        wait_until_serves(
            url,
            ready="/health",
            names={BASE, *adapters},
            started=[started],
            timeout_s=VLLM_START_TIMEOUT_S,
            scratch=scratch,
        )
        yield Serving(f"{url}/v1", {"vllm": started.pid})


def check_vllm(venv: Path) -> None:
    """Find out early that a peer isn't there.

    Raises:
        SettingsError: `venv` has no vLLM, or no Intel OpenMP beside it.
    """
    for needed in (venv / "bin" / "vllm", _openmp(venv)):
        if not needed.exists():
            raise SettingsError(
                f"--vllm {venv}: there is no {needed}; "
                "ops/docs/benchmarks.md says how to install it"
            )


def _vllm_environment(venv: Path) -> dict[str, str]:
    """What its documentation recommends, with every core for its OpenMP threads."""
    ours = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    return {
        **ours,
        # It calls programs of its own venv.
        "PATH": f"{venv.absolute() / 'bin'}:{os.environ.get('PATH', '')}",
        "LD_PRELOAD": str(_openmp(venv)),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": VLLM_KV_CACHE_GIB,
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    }


def _openmp(venv: Path) -> Path:
    return venv.absolute() / "lib" / "libiomp5.so"


def _named(adapters: Mapping[str, Path]) -> list[str]:
    return [f"{name}={folder}" for name, folder in adapters.items()]
