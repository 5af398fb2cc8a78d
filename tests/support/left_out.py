"""Pytest plugin that reports how many slow and long tests a run left out."""

from collections import Counter
from collections.abc import Sequence

import pytest

RUN_BY = {"slow": "make test-all", "long": "make test-long"}
"""The command that runs the tests of each marker."""
_DESELECTED = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_DESELECTED] = Counter()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        marker = next((name for name in RUN_BY if item.get_closest_marker(name)), None)
        if marker:
            item.config.stash[_DESELECTED][marker] += 1


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = config.stash[_DESELECTED]
    parts = [f"{counts[name]:,} {name} ({RUN_BY[name]})" for name in RUN_BY if counts[name]]
    if parts:
        terminalreporter.write_line(f"left out tests: {', '.join(parts)}")
