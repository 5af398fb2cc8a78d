"""Runs a measurement in its own process, so that measurements share no threads or memory."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.lab.machine import ROOT
from ops.lab.server_processes import clean_environment
from shared.errors import LorikeetError


class MeasurementFailed(LorikeetError):
    """A measurement failed. If a process failed, the message contains the output of the process."""


def run_module(
    name: str,
    *arguments: object,
    root: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Run `python -m ops.lab.bench.<name>`, and return the last line of its output, parsed as JSON.

    Args:
        name: name of the module.
        arguments: arguments of the module on its command line.
        root: folder that contains the packages.
        environment: variables that are added to the process's environment.

    Raises:
        MeasurementFailed: the process exited with a nonzero status.
    """
    command = [sys.executable, "-m", f"ops.lab.bench.{name}", *map(str, arguments)]
    variables = clean_environment() | dict(environment or {})
    done = subprocess.run(
        command, cwd=root, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MeasurementFailed(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
