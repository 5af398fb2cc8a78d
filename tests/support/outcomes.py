"""Pytest plugin that records which tests failed, and runs only the tests that failed before.

`run_again.py` uses it. With pytest-xdist, the main process records for all.
"""

import json
from pathlib import Path

import pytest

RECORD = "--record-outcomes"
ONLY_FAILED = "--only-failed"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(RECORD, type=Path, help="write failures, and tests that passed, to this file")
    parser.addoption(ONLY_FAILED, type=Path, help="run only the tests that failed in this record")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption(RECORD)
    if path and not hasattr(
        config, "workerinput"
    ):  # a process of pytest-xdist reports to the main one
        config.pluginmanager.register(_Recorder(path))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if path := config.getoption(ONLY_FAILED):
        failed = failures(path)
        items[:] = [item for item in items if item.nodeid in failed]


class _Recorder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or (report.passed and report.when == "call"):
            self._add(report.nodeid, report.longreprtext if report.failed else None)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._add(report.nodeid, report.longreprtext)

    def _add(self, nodeid: str, failure: str | None) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([nodeid, failure]) + "\n")


def failures(path: Path) -> dict[str, str]:
    """Return the first traceback of each test that failed."""
    found: dict[str, str] = {}
    for nodeid, failure in _records(path):
        if failure is not None:
            found.setdefault(nodeid, failure)
    return found


def passes(path: Path) -> set[str]:
    """Return the tests that passed, and didn't fail in their setup or teardown."""
    return {nodeid for nodeid, failure in _records(path) if failure is None} - failures(path).keys()


def _records(path: Path) -> list[tuple[str, str | None]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
