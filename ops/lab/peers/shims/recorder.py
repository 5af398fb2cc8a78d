"""Pytest plugin that writes the outcome of each test to a file, and stops the server at the end."""

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from ops.lab.peers.shims.server import SERVER

OUTPUT = "LORIKEET_PEERS_OUTPUT"
"""Environment variable with the path of the file, which gets a JSON object per line."""
LENGTH = 300


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the outcome of a test that ran, was skipped, or failed before it could run."""
    if report.when == "call" or report.outcome != "passed":
        if report.when == "teardown":
            return
        with Path(os.environ[OUTPUT]).open("ab") as file:
            file.write(orjson.dumps(_outcome(report)) + b"\n")


def pytest_sessionfinish() -> None:
    """Stop the server."""
    SERVER.stop()


def _outcome(report: pytest.TestReport) -> dict[str, Any]:
    outcome = {"test": report.nodeid, "outcome": report.outcome}
    if report.failed:
        outcome |= {"line": _failing_line(report), "error": _error(report)}
    return outcome


def _failing_line(report: pytest.TestReport) -> str:
    """Return the statement of the test itself that failed."""
    entries = getattr(report.longrepr, "reprtraceback", None)
    lines = entries.reprentries[0].lines if entries and entries.reprentries else []
    marked = [line[1:].strip() for line in lines if line.startswith(">")]
    return marked[0][:LENGTH] if marked else ""


def _error(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return text.partition("\n")[0][:LENGTH]
