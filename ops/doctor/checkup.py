"""Gathers all facts of a report. Checks that fail become problems or hints, not exceptions."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ops.demo.model import demo_folder
from ops.doctor.adapters import adapter_facts
from ops.doctor.base_model import DEMO, DEMO_BYTES, Base, find_base
from ops.doctor.facts import AdapterFacts, Facts, Fit, Folder, Machine, Plan, Problem, RedisFacts
from ops.doctor.machine import folder_facts, machine_facts
from ops.doctor.plan import plan_of
from ops.doctor.redis_check import own_redis_facts, redis_facts
from ops.doctor.running import running_at
from ops.local.data_folder import check_unused, data_folder, data_root
from ops.local.ports import usable_port
from ops.local.remembered_servers import RememberedServer, running_servers
from shared.cache_folder import VARIABLE, cache_folder
from shared.errors import LorikeetError
from shared.settings import ApiSettings, PoolSettings, UpSettings, WorkerSettings
from worker.adapters.source.allowed_sources import adapter_roots
from worker.model.loading.folder import model_name

T = TypeVar("T")
LEAST_FREE = 64 << 20
"""Free space in bytes that a folder needs for kernels, logs and small files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Settings and flags of the `lorikeet up` that is checked. Invalid settings are None."""

    api: ApiSettings | None
    worker: WorkerSettings | None
    own: UpSettings | None
    pool: PoolSettings | None
    has_redis_url: bool
    """Whether the user names a Redis server. If not, `lorikeet up` starts one."""
    devices: str | None
    num_workers: int | None

    @property
    def address(self) -> str:
        """Host and port of the front end, or an empty text if its settings are invalid."""
        return f"{self.api.host}:{self.api.port or 'a free port'}" if self.api else ""


@dataclass(slots=True)
class Checkup:
    """Runs checks, and collects the reasons of those that fail."""

    problems: list[Problem] = field(default_factory=list)
    hints: list[Problem] = field(default_factory=list)
    show: Callable[[str], None] = lambda _: None
    """Called with a description of what is being checked."""

    def attempt(
        self, what: str, check: Callable[[], T], *, prevents_start: bool = True
    ) -> T | None:
        """Run a check and return its result. If it fails, record the reason and return None.

        `prevents_start` says whether a refused setting is a problem, or only a hint.
        """
        self.show(f"checking {what}")
        try:
            return check()
        except LorikeetError as error:
            reasons = self.problems if prevents_start else self.hints
            reasons.append(Problem(str(error)))
        except Exception as error:  # noqa: BLE001  (a broken installation can raise any error)
            reason = (str(error).strip().splitlines() or [""])[0]
            text = f"{what} couldn't be checked ({type(error).__name__}: {reason})"
            self.hints.append(Problem(text))
        return None

    def facts(self, wanted: Wanted) -> Facts:
        """Return the facts about this machine, and about the start that `wanted` describes."""
        worker = wanted.worker
        folders = self.attempt("the folders", lambda: _folders(wanted)) or ()
        machine = self.attempt("the machine", lambda: machine_facts(worker, folders))
        redis = self.attempt("Redis", lambda: _redis(wanted))
        plan, base, fit, running = None, None, None, None
        if worker is not None:
            plan = self.attempt(
                "the devices",
                lambda: plan_of(worker, wanted.devices, wanted.num_workers, wanted.address),
            )
            base = self.attempt("the base model", lambda: find_base(worker, _name(worker)))
        if worker and base:
            running = self.attempt("the data folder", lambda: _running(wanted, worker, base))
        self.attempt("the port", lambda: _check_port(wanted, running))
        if worker and machine and plan and base:
            fit = self.attempt(
                "the memory",
                lambda: _fit(worker, machine, plan, base),
                prevents_start=running is None,  # the running server uses some of the memory
            )
        if worker and worker.engine != "simulated":
            self.attempt("the adapter roots", lambda: adapter_roots(worker))
        adapters = self.attempt("the adapters", lambda: _adapters(worker)) or ()
        if not running and (others := running_servers()):
            self.hints.append(_beside(others[0]))
        return Facts(
            running=running.url if running else None,
            machine=machine,
            redis=redis,
            plan=plan,
            base=base.facts if base else None,
            adapters=adapters,
            skips_bad_adapters=bool(worker and worker.skip_bad_adapters),
            fit=fit,
            problems=tuple(self.problems),
            hints=tuple(self.hints),
        )


def _beside(server: RememberedServer) -> Problem:
    """Return a hint about a running server of this user that isn't the planned one."""
    text = f"`lorikeet up` already runs, at {server.url}: this report is about a second one"
    return Problem(text, "`lorikeet status` shows the running server")


def _name(worker: WorkerSettings) -> str:
    return DEMO if worker.model == str(demo_folder()) else worker.model


def _folders(wanted: Wanted) -> tuple[Folder, ...]:
    worker = wanted.worker
    needs_demo = worker and _name(worker) == DEMO and not demo_folder().is_dir()
    cache_bytes = DEMO_BYTES if needs_demo else LEAST_FREE
    places = [("cache folder", cache_folder(), VARIABLE, cache_bytes)]
    if worker and worker.adapter_store:
        places.append(("adapter store", worker.adapter_store, "--adapter-store", LEAST_FREE))
    data_dir = wanted.own.data_dir if wanted.own else None
    if not wanted.has_redis_url and (data := data_root(data_dir)):
        places.append(("data folder", data, "--data-dir", LEAST_FREE))
    return tuple(
        folder_facts(purpose, path, setting=setting, least_free=least)
        for purpose, path, setting, least in places
    )


def _adapters(worker: WorkerSettings | None) -> tuple[AdapterFacts, ...]:
    if worker is None or worker.engine == "simulated":
        return ()
    bases_name = worker.served_name or model_name(worker.model, Path(worker.model).expanduser())
    return tuple(
        adapter_facts(name, source, bases_name=bases_name)
        for name, source in worker.adapter_sources.items()
    )


def _running(wanted: Wanted, worker: WorkerSettings, base: Base) -> RememberedServer | None:
    """Return the running server of this user that has the planned port and data folder, or None.

    Raises:
        SettingsError: another server uses the data folder.
    """
    if wanted.has_redis_url or wanted.own is None:
        return None
    if base.folder is None and worker.engine != "simulated":  # nothing is downloaded yet
        return None
    folder = data_folder(wanted.own.data_dir, worker, base.folder)
    if folder is None:
        return None
    running = running_at(wanted.api.port, folder) if wanted.api else None
    if running is None:
        check_unused(folder)
    return running


def _check_port(wanted: Wanted, running: RememberedServer | None) -> None:
    """Check that the front end can listen on its port, once the running server has ended.

    Raises:
        SettingsError: it can't.
    """
    if wanted.api:
        usable_port(wanted.api.host, 0 if running else wanted.api.port)


def _redis(wanted: Wanted) -> RedisFacts | None:
    if not wanted.has_redis_url:
        return own_redis_facts()
    return asyncio.run(redis_facts(wanted.pool)) if wanted.pool else None


def _fit(worker: WorkerSettings, machine: Machine, plan: Plan, base: Base) -> Fit | None:
    if base.shape is None:
        return None
    # Imported here, because it imports torch.
    from ops.doctor.fit import PlannedDevice, fit

    place = plan.devices[0]
    gpu = None
    if place.startswith("cuda"):
        index = int(place.partition(":")[2] or 0)
        if index >= len(machine.gpus):  # the driver doesn't report the GPU's memory
            return None
        gpu = machine.gpus[index]
    fraction = worker.memory_fraction / plan.devices.count(place)
    settings = worker.model_copy(update={"memory_fraction": fraction})
    name = place if gpu else "this machine"
    return fit(settings, base.shape, PlannedDevice(name, base.shape, gpu))
