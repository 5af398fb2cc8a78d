"""`lorikeet doctor`: reports whether `lorikeet up` would start here, and what would fit."""

from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
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
    warn_of_unknown_variables,
)
from ops.demo.model import demo_folder
from shared.api_keys import api_keys, metrics_key
from shared.log import configure_logging
from shared.settings import (
    ApiSettings,
    ControlSettings,
    PoolSettings,
    UpSettings,
    WorkerSettings,
)

if TYPE_CHECKING:
    from ops.doctor.checkup import Checkup, Wanted

EXIT_MISSING = 1


@settings_flags(ApiSettings, WorkerSettings, ControlSettings, UpSettings)
def doctor(
    base: ModelArgument = None,
    workers: WorkersOption = None,
    devices: DevicesOption = None,
    prints_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
    **given: Any,
) -> None:
    """Report what this machine has, what would be used, what is missing and what fits.

    The arguments are those of `lorikeet up`. Nothing is started, downloaded or loaded. The exit
    status is 0 if `lorikeet up` would start with the same arguments, and otherwise 1. If it runs
    with them already, its port and data folder count as free.
    """
    # Imported here, so that other commands don't import the checks.
    from ops.doctor.checkup import Checkup
    from ops.doctor.page import as_json, print_page
    from ops.doctor.report import report

    configure_logging("error", process="doctor")  # the report has the warnings
    with Console(stderr=True).status("reading the settings") as status:
        checkup = Checkup(show=status.update)
        checkup.attempt("the environment", warn_of_unknown_variables)
        facts = checkup.facts(_wanted(checkup, base, given, devices, workers))
    result = report(facts)
    if prints_json:
        print(orjson.dumps(as_json(facts, result), option=orjson.OPT_INDENT_2).decode())
    else:
        print_page(Console(), result)
    if not result.starts:
        raise typer.Exit(EXIT_MISSING)


def _wanted(
    checkup: "Checkup", base: str | None, given: Given, devices: str | None, workers: int | None
) -> "Wanted":
    """Read the settings in the way `lorikeet up` does. Record a problem for each invalid one."""
    from ops.doctor.checkup import Wanted

    api = checkup.attempt("the front end's settings", lambda: _api(given))
    checkup.attempt("the control settings", lambda: read_settings(ControlSettings, given))
    return Wanted(
        api=api,
        worker=checkup.attempt("the worker's settings", lambda: _worker(base, given)),
        own=checkup.attempt("the settings of up", lambda: read_settings(UpSettings, given)),
        pool=checkup.attempt("the pool's settings", lambda: read_settings(PoolSettings, given)),
        has_redis_url=bool(given["redis_url"] or redis_from_environment()),
        devices=devices,
        num_workers=workers,
    )


def _api(given: Given) -> ApiSettings:
    api = read_settings(ApiSettings, given)
    metrics_key(api, api_keys(api))
    return api


def _worker(base: str | None, given: Given) -> WorkerSettings:
    model = base_model(base, given, default=DEMO, demo=demo_folder)
    return read_settings(WorkerSettings, {**given, **model})
