"""Runs a measurement in a process of its own, so that threads and memory of none touch another."""

import json
import subprocess
import sys
from typing import Any

from ops.bench.machine import ROOT
from ops.bench.processes import clean_environment
from shared.errors import LorikeetError


class MeasurementFailed(LorikeetError):
    """A measurement's process has ended with an error; has its last words."""


def run_module(name: str, *arguments: str) -> Any:
    """What `python -m ops.bench.<name>` prints in its last line, read as JSON.

    Raises:
        MeasurementFailed: it ended with an error.
    """
    command = [sys.executable, "-m", f"ops.bench.{name}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MeasurementFailed(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
