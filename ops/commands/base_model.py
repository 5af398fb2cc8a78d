"""Resolves the base model that a command line names. The name `demo` selects the demo's model."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ops.commands.flags import Given, one_model
from ops.demo.model import demo_folder, demo_model
from shared.errors import SettingsError
from shared.settings import ENV_PREFIX, WorkerSettings

DEMO = "demo"
DEMO_ADAPTERS = Path(__file__).parents[1] / "demo" / "adapters"


def converted_demo() -> Path:
    """Return the folder of the demo model, and convert the model at the first use.

    The conversion runs in a separate process, because its libraries would otherwise stay in
    memory. Ctrl-C ends that process, which then removes what it has written.

    Raises:
        SettingsError: the model can't be converted.
    """
    folder = demo_folder()
    if folder.is_dir():
        return folder
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_convert, args=(sender,), daemon=True)
    _start_without_interrupts(process)
    sender.close()  # so that the end of the process ends the pipe
    try:
        found = receiver.recv()
    except EOFError:
        raise SettingsError(
            "the conversion of the demo model was killed, probably for lack of memory; it "
            "needs 2 GB"
        ) from None
    finally:
        process.terminate()
        process.join()
    if isinstance(found, Exception):
        raise found
    return Path(found)


def _start_without_interrupts(process: BaseProcess) -> None:
    """Start a process that Ctrl-C doesn't reach, because it inherits that SIGINT is blocked."""
    resource_tracker.ensure_running()  # `start` would call this, and unblock SIGINT after it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _convert(sender: Connection) -> None:
    """Convert the demo model, and send its folder, or the error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, so that files are removed
    try:
        sender.send(str(demo_model()))
    except Exception as error:  # noqa: BLE001 -- the parent process raises it
        sender.send(error)


def base_model(
    argument: str | None,
    given: Given,
    *,
    default: str | None = None,
    demo: Callable[[], Path] = converted_demo,
) -> dict[str, str | list[str] | None]:
    """Return the setting `model` and, for the demo, also the setting `adapters`.

    If a returned setting is None, the environment or the default decides. The function `demo` must
    return the folder of the demo's model. By default, it converts the model at the first use, which
    takes half a minute.

    Raises:
        SettingsError: two different models are given, or the demo model can't be converted.
    """
    model = one_model(argument, given["model"]) or os.environ.get(f"{ENV_PREFIX}MODEL") or default
    is_demo = model == DEMO and _engine(given) != "simulated"
    return _demo(given, demo()) if is_demo else {"model": model}


def _engine(given: Given) -> str:
    field = WorkerSettings.model_fields["engine"]
    return str(given.get("engine") or os.environ.get(f"{ENV_PREFIX}ENGINE") or field.default)


def _demo(given: Given, model: Path) -> dict[str, Any]:
    """Return the settings `model` and `adapters`. The user's adapters replace the demo's."""
    shipped = [f"{folder.name}={folder}" for folder in sorted(DEMO_ADAPTERS.iterdir())]
    is_chosen = given["adapters"] or f"{ENV_PREFIX}ADAPTERS" in os.environ
    return {"model": str(model), "adapters": given["adapters"] if is_chosen else shipped}
