"""Resolves the base model that a command line names. The name `demo` selects the demo's model."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ops.commands.flags import Given, one_model
from ops.demo.model import demo_model
from shared.settings import ENV_PREFIX, WorkerSettings

DEMO = "demo"
DEMO_ADAPTERS = Path(__file__).parents[1] / "demo" / "adapters"


def base_model(
    argument: str | None, given: Given, *, default: str | None = None
) -> dict[str, str | list[str] | None]:
    """Return the setting `model` and, for the demo, also the setting `adapters`.

    For a setting with the value None, the environment or the default applies. The first use of the
    demo converts the demo model, which takes half a minute.

    Raises:
        SettingsError: two different models are given, or the demo model can't be converted.
    """
    model = one_model(argument, given["model"]) or os.environ.get(f"{ENV_PREFIX}MODEL") or default
    is_demo = model == DEMO and _engine(given) != "simulated"
    return _demo(given) if is_demo else {"model": model}


def _engine(given: Given) -> str:
    field = WorkerSettings.model_fields["engine"]
    return str(given.get("engine") or os.environ.get(f"{ENV_PREFIX}ENGINE") or field.default)


def _demo(given: Given) -> dict[str, Any]:
    """Return the settings `model` and `adapters` for the demo.

    Adapters from a flag or the environment replace the demo's adapters.
    """
    # The conversion runs in a separate process, because its libraries would stay in memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        model = pool.submit(demo_model).result()
    shipped = [f"{folder.name}={folder}" for folder in sorted(DEMO_ADAPTERS.iterdir())]
    is_chosen = given["adapters"] or f"{ENV_PREFIX}ADAPTERS" in os.environ
    return {"model": str(model), "adapters": given["adapters"] if is_chosen else shipped}
