"""The base model that a command line names; `demo` is one that Lorikeet brings along."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ops.commands.flags import Given, one_model
from ops.demo.model import demo_model
from shared.settings import ENV_PREFIX

DEMO = "demo"
DEMO_ADAPTERS = Path(__file__).parents[1] / "demo" / "adapters"


def base_model(
    argument: str | None, given: Given, *, default: str | None = None
) -> dict[str, str | list[str] | None]:
    """The settings `model` and, for the demo, `adapters`; None is left to the environment.

    Converts the demo model at its first use, which takes half a minute.

    Raises:
        SettingsError: two models are given, or the demo can't be made.
    """
    model = one_model(argument, given["model"]) or os.environ.get(f"{ENV_PREFIX}MODEL") or default
    return _demo(given) if model == DEMO else {"model": model}


def _demo(given: Given) -> dict[str, Any]:
    """The demo model, and its adapters if none were given."""
    # In a process of its own: the conversion's libraries would stay in this one's memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        model = pool.submit(demo_model).result()
    shipped = [f"{folder.name}={folder}" for folder in sorted(DEMO_ADAPTERS.iterdir())]
    is_chosen = given["adapters"] or f"{ENV_PREFIX}ADAPTERS" in os.environ
    return {"model": str(model), "adapters": given["adapters"] if is_chosen else shipped}
