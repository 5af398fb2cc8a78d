"""`lorikeet up`: runs all processes on one machine."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from ops.commands.base_model import DEMO, base_model
from ops.commands.client_options import DEFAULT_URL
from ops.commands.flags import (
    Given,
    ModelArgument,
    read_settings,
    redis_from_environment,
    settings_flags,
    to_argv,
)
from ops.local.cores import usable_cores
from ops.local.devices import AUTO, devices_of_workers
from ops.local.gpus import usable_gpus
from ops.local.ports import usable_port
from ops.local.process_output import Lines
from ops.local.up import DEFAULT_REDIS_URL, Plan, run_plan, worker_names
from shared.api_keys import api_keys, metrics_key
from shared.settings import ApiSettings, ControlSettings, PoolSettings, WorkerSettings

DEMO_PROMPTS = {"extract": "Please send 31 monitors to Jonas Dubois in Osaka."}
MAX_NAMES_SHOWN = 8
_SECRETS = {"redis_url", "api_keys", "api_key_file", "metrics_key"}
"""Settings that children read from the environment, because every user of the machine can see
command lines.
"""


@settings_flags(ApiSettings, WorkerSettings, ControlSettings)
def up(
    base: ModelArgument = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            show_default=False,
            help="Number of worker processes. By default one per device.",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            show_default=False,
            help="Devices of the workers: all (GPUs), cpu, or a list such as cuda:0,cuda:1. "
            "By default all GPUs, or the CPU if there is none.",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Run everything on this machine: Redis, front end, control process and workers.

    If no model is given, the command serves the demo: a small model and the adapters in ops/demo.
    Unless --redis-url or REDIS_URL is given, it starts a Redis, and stops this Redis at the end.
    """
    api = read_settings(ApiSettings, given)
    keys = api_keys(api)
    key_of_metrics = metrics_key(api, keys)
    given |= {"host": api.host, "port": usable_port(api.host, api.port)}
    given |= base_model(base, given, default=DEMO)
    worker = read_settings(WorkerSettings, given)
    gpus = usable_gpus(worker)
    places = devices_of_workers(devices, worker.device, workers, gpus)
    given["threads"] = worker.threads or max(1, usable_cores() // len(places))

    plan = Plan(
        api=["api", *_child_flags(ApiSettings, given)],
        workers=[
            ["worker", *_child_flags(WorkerSettings, {**given, **_share(worker, device, places)})]
            for device in places
        ],
        control=["control", *_child_flags(ControlSettings, given)],
        api_keys=keys,
        metrics_key=key_of_metrics,
        redis_url=given["redis_url"] or redis_from_environment(),
        is_strict=worker.durability == "strict",
        drain_s=worker.drain_s,
        url=_url(api.host, given["port"]),
    )
    lines = Lines(Console(stderr=True), ["lorikeet", "api", "control", *worker_names(len(places))])
    if gpus.problem and AUTO in places:
        lines.show("lorikeet", f"no GPU is used: {gpus.problem}")

    def announce(names: Sequence[str], redis_url: str | None) -> None:
        _announce(plan.url, names, redis_url, has_keys=bool(keys))

    run_plan(plan, lines.show, announce)


def _share(worker: WorkerSettings, device: str, places: Sequence[str]) -> Given:
    """Return the device of one worker, and its part of the device's memory.

    `places` has the device of each worker.
    """
    return {"device": device, "memory_fraction": worker.memory_fraction / places.count(device)}


def _child_flags(cls: type[PoolSettings], given: Given) -> list[str]:
    return to_argv(given, [name for name in cls.model_fields if name not in _SECRETS])


def _url(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(url: str, names: Sequence[str], redis_url: str | None, *, has_keys: bool) -> None:
    model = next((name for name in names if name in DEMO_PROMPTS), names[-1])
    body = {
        "model": model,
        "messages": [{"role": "user", "content": DEMO_PROMPTS.get(model, "Hello!")}],
        "temperature": 0,
    }
    more = len(names) - MAX_NAMES_SHOWN
    served = ", ".join(names[:MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    headers = "-H 'Content-Type: application/json'"
    if has_keys:
        headers += " -H 'Authorization: Bearer KEY'"
    data = orjson.dumps(body).decode().replace("'", "'\\''")
    print(
        f"\nLorikeet is ready at {url} and serves {served}. Try:\n\n"
        f"curl {url}/v1/chat/completions {headers} -d '{data}'\n\n"
        "From another terminal:\n\n"
        + "".join(f"{_program()} {line}\n" for line in _next_commands(url, model, redis_url))
        + f"\nAPI: {url}/docs    Stop: Ctrl-C\n",
        flush=True,
    )


def _next_commands(url: str, model: str, redis_url: str | None) -> list[str]:
    """Return commands to suggest to the user.

    `redis_url` is the URL of the Redis that this process started. If it is None, the commands that
    need Redis are left out.
    """
    chat = f"chat {model}" if url == DEFAULT_URL else f"chat {model} --url {url}"
    if redis_url is None:
        return [chat]
    queue = "queue --watch"
    return [chat, queue if redis_url == DEFAULT_REDIS_URL else f"{queue} --redis-url {redis_url}"]


def _program() -> str:
    """Return the name of this program if it is on PATH, otherwise its path."""
    name = Path(sys.argv[0]).name
    return name if shutil.which(name) == sys.argv[0] else sys.argv[0]
