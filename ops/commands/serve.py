"""`lorikeet api | worker | control`: one process each. Torch and FastAPI are imported only here."""

from typing import Any

from ops.commands.base_model import base_model
from ops.commands.flags import ModelArgument, read_settings, settings_flags
from shared.log import configure_logging
from shared.settings import ApiSettings, ControlSettings, WorkerSettings


@settings_flags(ApiSettings)
def api(**given: Any) -> None:
    """Serve the OpenAI-compatible API. Needs Redis; any number may run."""
    settings = read_settings(ApiSettings, given)
    configure_logging(settings.log_level, process="api")
    from api.server import run_api

    run_api(settings)


@settings_flags(WorkerSettings)
def worker(base: ModelArgument = None, **given: Any) -> None:
    """Run one engine: a base model and its adapters. Needs Redis; any number may run."""
    settings = read_settings(WorkerSettings, {**given, **base_model(base, given)})
    configure_logging(settings.log_level, process="worker")
    from worker.process import run_worker

    run_worker(settings)


@settings_flags(ControlSettings)
def control(**given: Any) -> None:
    """Look after the pool: hand on the jobs of workers that died. Needs Redis only."""
    settings = read_settings(ControlSettings, given)
    configure_logging(settings.log_level, process="control")
    from worker.control import run_control

    run_control(settings)
