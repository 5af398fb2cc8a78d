"""Pytest plugin that reports how many slow and long tests a run left out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

RUN_BY = {"slow": "make test-all", "long": "make test-long"}
"""The command that runs the tests of each marker."""
OUTPUT = "left_out"
"""Name under which a process of pytest-xdist passes its counts to the main process."""
_COUNTS = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_COUNTS] = Counter()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        marker = next((name for name in RUN_BY if item.get_closest_marker(name)), None)
        if marker:
            item.config.stash[_COUNTS][marker] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)  # only processes of pytest-xdist have it
    if output is not None:
        output[OUTPUT] = dict(session.config.stash[_COUNTS])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the counts of a process. Each one collects, and leaves out, the same tests."""
    if counts := getattr(node, "workeroutput", {}).get(OUTPUT):
        node.config.stash[_COUNTS] = Counter(counts)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = config.stash[_COUNTS]
    parts = [f"{counts[name]:,} {name} ({RUN_BY[name]})" for name in RUN_BY if counts[name]]
    if parts:
        terminalreporter.write_line(f"left out tests: {', '.join(parts)}")
