"""Pytest plugin that lets one process of pytest-xdist run all tests that share a slow server."""

from typing import Any

import pytest

FOLDERS = ("tests/console/adapters", "tests/e2e/adapters", "tests/e2e/tiny")
"""Folders whose tests share a server. Its start takes longer than most files."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute files, as `--dist loadfile` does, but these folders as a whole."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class SharedServers(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return part_of(nodeid)

    return SharedServers(config, log)


def part_of(nodeid: str) -> str:
    """Return the folder or file of a test, which one process runs as a whole."""
    file = nodeid.partition("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder in FOLDERS else file
