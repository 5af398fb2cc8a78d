"""`lorikeet api`, `lorikeet worker` and `lorikeet control`: run one process each.

torch and FastAPI are imported only when one of these commands runs.
"""

from typing import Any

from ops.commands.base_model import base_model
from ops.commands.flags import (
    ModelArgument,
    read_settings,
    settings_flags,
    warn_of_unknown_variables,
)
from shared.log import configure_logging
from shared.settings import ApiSettings, ControlSettings, WorkerSettings


@settings_flags(ApiSettings)
def api(**given: Any) -> None:
    """Run a front end, which serves the OpenAI-compatible API.

    It needs Redis. A pool may have any number of front ends.
    """
    warn_of_unknown_variables()
    settings = read_settings(ApiSettings, given)
    configure_logging(settings.log_level, process="api")
    from api.server import run_api

    run_api(settings)


@settings_flags(WorkerSettings)
def worker(base: ModelArgument = None, **given: Any) -> None:
    """Run a worker, which computes the answers of a base model and its adapters.

    It needs Redis. A pool may have any number of workers.
    """
    warn_of_unknown_variables()
    settings = read_settings(WorkerSettings, {**given, **base_model(base, given)})
    configure_logging(settings.log_level, process="worker")
    from worker.process import run_worker

    run_worker(settings)


@settings_flags(ControlSettings)
def control(**given: Any) -> None:
    """Run the control process, which keeps the pool in order.

    It requeues the jobs of dead workers, deletes old dead letters, releases adapters from
    quarantine, audits the pool's keys and runs batches. It needs Redis, but no model.
    """
    warn_of_unknown_variables()
    settings = read_settings(ControlSettings, given)
    configure_logging(settings.log_level, process="control")
    from ops.control.process import run_control

    run_control(settings)
