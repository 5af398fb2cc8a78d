"""Finds the Python that has vLLM, which needs other versions of Lorikeet's packages.

Importing this module needs neither torch nor vLLM.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from shared.errors import SettingsError

FOLDER = ".venv-vllm"
_SWITCHED = "SWITCHED_TO_VLLM_PYTHON"
"""Environment variable that stops a Python without vLLM from starting itself again."""


def switch_python(setting: Path | None, argv: list[str]) -> None:
    """Return if this Python has vLLM. Otherwise, replace this process by one that has it.

    Args:
        setting: value of --vllm-python.
        argv: arguments of the new Python.

    Raises:
        SettingsError: no Python with vLLM is found.
    """
    if find_spec("vllm") is not None:
        return
    python = setting or Path(sys.prefix).parent / FOLDER / "bin" / "python"
    if _SWITCHED in os.environ or not os.access(python, os.X_OK):
        raise SettingsError(
            f"--engine vllm: vLLM isn't installed in {_place(python)}. In a checkout of Lorikeet, "
            "`make vllm` installs it. Elsewhere, name the Python of its virtual environment with "
            "--vllm-python"
        )
    os.environ[_SWITCHED] = "1"
    os.execv(python, [str(python), *argv])


def _place(python: Path) -> str:
    return str(sys.executable if _SWITCHED in os.environ else python)
