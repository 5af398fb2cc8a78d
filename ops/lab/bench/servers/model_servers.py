"""Starts the measured servers: Lorikeet as users start it, and vLLM for CPUs.

Both servers serve the base model as `BASE` and use all cores. vLLM has its own virtual environment;
`ops/docs/benchmarks.md` describes how to create that environment.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ops.lab.bench.servers.checkouts import LORIKEET, environment_of
from ops.lab.bench.servers.random_adapters import MAX_RANK
from ops.lab.machine import ROOT
from ops.lab.server_processes import (
    Serving,
    clean_environment,
    process,
    wait_until_serves,
)
from ops.local.embedded_redis import start_redis
from ops.local.ports import free_port
from shared.errors import SettingsError

BASE = "base"
"""Name under which the base model is served."""
NO_PROMPT_LOOKUP = "--no-prompt-lookup"
"""Flag of a worker whose steps are measured.

Greedy answers to random words repeat themselves, so lookup would hide the price of a step.
"""
START_TIMEOUT_S = 180.0
VLLM_START_TIMEOUT_S = 900.0
"""Longest time that vLLM may take to start. Its first start includes minutes of compilation."""
VLLM_MAX_MODEL_LEN = "2048"
VLLM_KV_CACHE_GIB = "4"


@contextmanager
def lorikeet(
    model: Path,
    adapters: Mapping[str, Path],
    scratch: Path,
    worker_flags: Sequence[str] = (),
    *,
    runs_batches: bool = False,
    checkout: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """Serve the model and its adapters with Redis, a worker and a front end.

    Args:
        model: folder of the base model.
        adapters: folders by name.
        scratch: receives Redis' data, copies of adapters, and logs.
        worker_flags: further flags of the worker.
        runs_batches: whether to run a control process and use a file store, too.
        checkout: the checkout whose code runs.
        environment: variables that are added to those of the processes.

    Raises:
        ServerFailed: the server didn't become ready.
    """
    with ExitStack() as stack:
        redis = start_redis(scratch / "redis")
        stack.callback(redis.stop)
        common = ["--redis-url", redis.url, "--log-level", "warning"]
        served = ["--model", str(model), "--served-name", BASE]
        served += ["--adapters", *_named(adapters)] if adapters else []
        stored = ["--adapter-store", str(scratch / "adapter-store")]
        port = free_port()
        files = ["--file-store", str(scratch / "files")] if runs_batches else []
        commands = {
            "worker": ["worker", *served, *stored, *worker_flags, *common],
            "api": ["api", "--port", str(port), *files, *common],
        }
        if runs_batches:
            commands["control"] = ["control", *files, *common]
        variables = environment_of(checkout) | dict(environment or {})
        started = {
            name: stack.enter_context(process(name, [*LORIKEET, *words], scratch, variables))
            for name, words in commands.items()
        }
        url = f"http://127.0.0.1:{port}"
        wait_until_serves(
            url,
            ready="/ready/worker",
            names={BASE, *adapters},
            started=list(started.values()),
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
        )
        pids = {name: one.pid for name, one in started.items()}
        yield Serving(f"{url}/v1", {**pids, "redis": redis.pid})


@contextmanager
def vllm(venv: Path, model: Path, adapters: Mapping[str, Path], scratch: Path) -> Iterator[Serving]:
    """Serve the model and its adapters with the vLLM in `venv`.

    vLLM runs in its fastest configuration for CPUs.

    Raises:
        ServerFailed: the server didn't become ready.
    """
    port = free_port()
    command = [
        # In the build for CPUs, a distribution of another name, the command `vllm` won't start.
        *(str(venv.absolute() / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"),
        "--model", str(model),
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
    """Check that `venv` contains vLLM and Intel's OpenMP.

    Raises:
        SettingsError: `venv` lacks vLLM or Intel's OpenMP.
    """
    for needed in (venv / "bin" / "vllm", _openmp(venv)):
        if not needed.exists():
            raise SettingsError(
                f"--vllm {venv}: {needed} doesn't exist; "
                "ops/docs/benchmarks.md describes how to install it"
            )


def _vllm_environment(venv: Path) -> dict[str, str]:
    """Return the environment that vLLM's documentation recommends. It lets vLLM use all cores."""
    ours = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    return {
        **ours,
        # vLLM runs programs from its virtual environment.
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
