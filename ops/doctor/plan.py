"""Works out what `lorikeet up` would start, without starting it."""

from importlib.util import find_spec

from ops.doctor.facts import Plan, Problem
from ops.local.cores import usable_cores
from ops.local.devices import AUTO, devices_of_workers, is_gpu
from ops.local.gpus import usable_gpus
from shared.settings import WorkerSettings
from worker.kernels.cpu.build import NotCompiled, find_compiler, prebuilt_libraries

SLOWER = "torch computes, several times slower"
NATIVE_DTYPES = {"float32", "bfloat16"}


def plan_of(worker: WorkerSettings, devices: str | None, num_workers: int | None, url: str) -> Plan:
    """Return the processes that `lorikeet up` would start with these settings and flags.

    Raises:
        SettingsError: the machine doesn't have the devices that the flags name.
    """
    gpus = usable_gpus(worker)
    places = devices_of_workers(devices, worker.device, num_workers, gpus)
    shown = tuple("cpu" if place == AUTO else place for place in places)
    dtype = "bfloat16" if worker.dtype == "auto" else worker.dtype
    kernels, problem = _kernels(worker.engine, shown[0], dtype)
    return Plan(
        engine=worker.engine,
        dtype=worker.dtype_text(dtype) if worker.engine == "native" else "",
        devices=shown,
        threads=worker.threads or max(1, usable_cores() // len(places)),
        kernels=kernels,
        kernels_problem=problem,
        url=url,
        gpu_problem=gpus.problem if AUTO in places else None,
    )


def _kernels(engine: str, device: str, dtype: str) -> tuple[str, Problem | None]:
    """Return the name of the kernels that a worker would use, and why they aren't the fastest.

    The reason is None if they are the fastest.
    """
    if engine != "native":
        return "", None
    if is_gpu(device):
        if find_spec("triton") is not None:
            return "Triton", None
        return "", Problem(f"Triton isn't installed: {SLOWER}", "run `pip install triton`")
    if dtype not in NATIVE_DTYPES:
        return "", Problem(f"no kernels for {dtype} on a CPU: {SLOWER}", "give --dtype bfloat16")
    return _cpu_kernels()


def _cpu_kernels() -> tuple[str, Problem | None]:
    if prebuilt := prebuilt_libraries():
        return f"native, contained in the package ({prebuilt[0].stem})", None
    try:
        compiler = find_compiler()
    except NotCompiled as error:
        return "", Problem(f"{error}: {SLOWER}", "run `apt-get install g++`")
    return f"native, compiled by {compiler} at the first start and cached", None
