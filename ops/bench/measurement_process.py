"""Runs a measurement in its own process, so that measurements share no threads or memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ops.bench.machine import ROOT
from ops.bench.server_processes import clean_environment
from shared.errors import LorikeetError


class MeasurementFailed(LorikeetError):
    """A measurement failed. If a process failed, the message contains the output of the process."""


def run_module(name: str, *arguments: str, root: Path = ROOT) -> Any:
    """Run `python -m ops.bench.<name>`, and return the last line of its output, parsed as JSON.

    `root` is the folder that contains the packages.

    Raises:
        MeasurementFailed: the process exited with a nonzero status.
    """
    command = [sys.executable, "-m", f"ops.bench.{name}", *arguments]
    done = subprocess.run(
        command, cwd=root, env=clean_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MeasurementFailed(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
