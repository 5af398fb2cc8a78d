"""`lorikeet up`: runs all processes on one machine."""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from ops.commands.base_model import DEMO, base_model
from ops.commands.flags import (
    DevicesOption,
    Given,
    ModelArgument,
    WorkersOption,
    read_settings,
    redis_from_environment,
    settings_flags,
    to_argv,
    to_variables,
    warn_of_unknown_variables,
)
from ops.local.cores import usable_cores
from ops.local.data_folder import ADAPTERS, FILES, data_folder
from ops.local.devices import AUTO, devices_of_workers
from ops.local.gpus import usable_gpus
from ops.local.ports import usable_port
from ops.local.process_output import Lines, StartOutput, StepBar
from ops.local.redis_login import with_login
from ops.local.remembered_servers import remembered_up
from ops.local.up import WEBHOOK_SECRET, Plan, Ready, run_plan, worker_names
from shared.api_keys import ADMIN, ApiKey, api_keys, metrics_key
from shared.settings import (
    ENV_PREFIX,
    ApiSettings,
    ControlSettings,
    PoolSettings,
    UpSettings,
    WorkerSettings,
)
from shared.store.redis.connection import check_redis_at

DEMO_PROMPTS = {"extract": "Please send 31 monitors to Jonas Dubois in Osaka."}
MAX_NAMES_SHOWN = 8
_SECRETS = {"redis_url", "api_keys", "api_key_file", "metrics_key", "webhook_secret"}
"""Settings that child processes get in environment variables, because every user of the machine
can see command lines.
"""
_OF_SERVERS = {"host", "port", "root_path", "allow_anonymous", "require_keys"}
"""Settings of front ends that concern only connections, so batches don't need them."""


@settings_flags(ApiSettings, WorkerSettings, ControlSettings, UpSettings)
def up(
    base: ModelArgument = None,
    workers: WorkersOption = None,
    devices: DevicesOption = None,
    **given: Any,
) -> None:
    """Run everything on this machine: Redis, front end, control process and workers.

    If no model is given, the command serves the demo: a small model and the adapters in ops/demo.
    Unless --redis-url or REDIS_URL is given, it starts a Redis, and stops this Redis at the end.
    Waiting requests and loaded adapters are kept in --data-dir for the next start.
    """
    warn_of_unknown_variables()
    own = read_settings(UpSettings, given)
    api = read_settings(ApiSettings, given)
    metrics_key(api, api_keys(api))  # refuses bad keys before the checks that take time
    control = read_settings(ControlSettings, given)
    given |= {"host": api.host, "port": usable_port(api.host, api.port)}
    redis_url = given["redis_url"] or redis_from_environment()
    if redis_url:
        redis_url = with_login(redis_url)
        asyncio.run(check_redis_at(redis_url))
    given |= base_model(base, given, default=DEMO)
    worker = read_settings(WorkerSettings, given)
    gpus = usable_gpus(worker)
    places = devices_of_workers(devices, worker.device, workers, gpus)
    given["threads"] = worker.threads or max(1, usable_cores() // len(places))
    plan = _plan(given, own, api, worker, control, redis_url, places)
    notes = []
    if gpus.problem and AUTO in places:
        notes.append(f"no GPU is used: {gpus.problem}")
    if redis_url and own.data_dir:
        notes.append("--data-dir isn't used, because --redis-url names the Redis")
    if worker.engine == "native" and (untested := _untested()):
        notes.append(untested)
    _run(plan, notes)


def _untested() -> str | None:
    # Imported here, because front ends and simulated workers run without this room's packages.
    from worker.upstream.versions import untested_note

    return untested_note()


def _plan(
    given: Given,
    own: UpSettings,
    api: ApiSettings,
    worker: WorkerSettings,
    control: ControlSettings,
    redis_url: str | None,
    places: Sequence[str],
) -> Plan:
    """Check the files, and return the processes to run. `places` has each worker's device."""
    base, left_out = _checked_files(worker)
    folder = None if redis_url else data_folder(own.data_dir, worker, base)
    if folder and worker.adapter_store is None:
        given = {**given, "adapter_store": folder / ADAPTERS}
    if folder and api.file_store is None:
        given = {**given, "file_store": str(folder / FILES)}
    keys = api_keys(api)
    sources = worker.adapter_sources.items()
    return Plan(
        api=["api", *_child_flags(ApiSettings, given)],
        workers=[
            ["worker", *_child_flags(WorkerSettings, {**given, **_share(worker, device, places)})]
            for device in places
        ],
        control=["control", *_child_flags(ControlSettings, given)],
        api_keys=keys,
        metrics_key=metrics_key(api, keys),
        control_variables=_control_variables(given, control),
        redis_url=redis_url,
        is_strict=worker.durability == "strict",
        data_folder=folder,
        model=str(base or worker.model),
        pool=worker.pool,
        adapters={name: source for name, source in sources if name not in left_out},
        drain_s=worker.drain_s,
        url=_url(api.host, given["port"]),
    )


def _run(plan: Plan, notes: Sequence[str]) -> None:
    """Show `notes`, then run the processes and show their output."""
    names = ["lorikeet", "api", "control", *worker_names(len(plan.workers))]
    console = Console(stderr=True)
    bar = StepBar(console)
    output = StartOutput(Lines(console, names).show, bar.show)
    for note in notes:
        output.show("lorikeet", note)

    with ExitStack() as stack:

        def announce(ready: Ready) -> None:
            stack.enter_context(remembered_up(plan.url, _own_key(plan.api_keys)))
            _announce(plan, ready)

        try:
            run_plan(plan, output, announce)
        finally:
            bar.show(None)
    output.show("lorikeet", "Stopped.")


def _own_key(keys: Sequence[ApiKey]) -> str | None:
    """Return the key for this user's commands: an administrator's if there is one."""
    preferred = [key for key in keys if key.tenant == ADMIN] or list(keys)
    return preferred[0].secret if preferred else None


def _checked_files(worker: WorkerSettings) -> tuple[Path | None, frozenset[str]]:
    """Check the model and adapters. Return the model's folder, and the adapters to leave out."""
    if worker.engine == "simulated":
        return None, frozenset()
    # Imported here, because only the other engines need the packages that it imports.
    from worker.startup.check_files import check_files

    checked = check_files(worker)
    return checked.base, checked.left_out


def _share(worker: WorkerSettings, device: str, places: Sequence[str]) -> Given:
    """Return settings of one worker: its device, and its fraction of the device's memory."""
    return {"device": device, "memory_fraction": worker.memory_fraction / places.count(device)}


def _control_variables(given: Given, control: ControlSettings) -> dict[str, str]:
    """Return variables of the control process: webhook secret, and API settings for batches."""
    secret = control.webhook_secret
    names = [name for name in ApiSettings.model_fields if name not in {*_SECRETS, *_OF_SERVERS}]
    return {
        **to_variables(given, names),
        f"{ENV_PREFIX}{WEBHOOK_SECRET}": secret.get_secret_value() if secret else "",
    }


def _child_flags(cls: type[PoolSettings], given: Given) -> list[str]:
    return to_argv(given, [name for name in cls.model_fields if name not in _SECRETS])


def _url(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(plan: Plan, ready: Ready) -> None:
    url, names = plan.url, ready.names
    model = next((name for name in names if name in DEMO_PROMPTS), names[-1])
    body = {
        "model": model,
        "messages": [{"role": "user", "content": DEMO_PROMPTS.get(model, "Hello!")}],
        "temperature": 0,
    }
    more = len(names) - MAX_NAMES_SHOWN
    served = ", ".join(names[:MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    headers = "-H 'Content-Type: application/json'"
    if plan.api_keys:
        headers += " -H 'Authorization: Bearer KEY'"
    request = orjson.dumps(body).decode().replace("'", "'\\''")
    data = f"    Data: {plan.data_folder}" if plan.data_folder else ""
    redis = f"    Redis: {ready.redis_url}" if ready.redis_url else ""
    print(
        f"\nLorikeet is ready at {url} and serves {served}. {_notes(ready.notes)}Try:\n\n"
        f"curl {url}/v1/chat/completions {headers} -d '{request}'\n\n"
        "From another terminal:\n\n"
        f"{_program()} chat {model}\n{_program()} status\n"
        f"\nBase: {plan.model}\n"
        f"Console: {url}/    API: {url}/docs{data}{redis}    Stop: Ctrl-C\n",
        flush=True,
    )


def _notes(notes: Sequence[str]) -> str:
    return "".join(["But:\n\n", *(f"- {note}\n" for note in notes), "\n"]) if notes else ""


def _program() -> str:
    """Return the name of this program if it is on PATH, otherwise its path."""
    name = Path(sys.argv[0]).name
    return name if shutil.which(name) == sys.argv[0] else sys.argv[0]
