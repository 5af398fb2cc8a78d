"""Runs a suite's tests with pytest, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from ops.lab.machine import ROOT
from ops.lab.peers.outcomes import Outcome
from ops.lab.peers.shims.recorder import OUTPUT
from ops.lab.peers.suites import SHIMS, Suite
from ops.lab.server_processes import ServerFailed

CONFIGURATION = """[pytest]
asyncio_default_fixture_loop_scope = function
timeout = 120
"""
STATUSES = {0, 1}
"""Exit statuses of pytest if it has run the tests, whether or not they passed."""


def run_tests(suite: Suite, root: Path, files: Sequence[str], log: Path | None) -> list[Outcome]:
    """Run tests of the suite whose sources are in `root`, and return their outcomes.

    pytest's output goes to `log`, or else to a file in `root`.

    Raises:
        ServerFailed: pytest couldn't collect or run the tests.
    """
    settings, output, log = root / "peers.ini", root / "outcomes", log or root / "pytest.log"
    settings.write_text(CONFIGURATION)
    folder = root / suite.folder
    plugins = [word for name in ("recorder", suite.shim) for word in ("-p", f"{SHIMS}.{name}")]
    options = ["-c", str(settings), "--rootdir", str(folder), "-p", "no:cacheprovider", "-q"]
    command = [sys.executable, "-m", "pytest", *plugins, *options, "-m", suite.marks, *files]
    environment = os.environ | {OUTPUT: str(output), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=file, stderr=file, check=False
        )
    if done.returncode not in STATUSES:
        raise ServerFailed(f"pytest can't run the tests:\n{log.read_text()[-2000:]}")
    lines = output.read_bytes().splitlines()
    return [Outcome(**orjson.loads(line)) for line in lines]
