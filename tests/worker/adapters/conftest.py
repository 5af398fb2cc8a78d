"""Fixtures for sources of adapters."""

from pathlib import Path

import pytest
from bad_adapters import save_good

from worker.adapters.disk_store import AdapterStore


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a valid adapter."""
    return save_good(tmp_path_factory.mktemp("good") / "good")


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store", max_bytes=64 << 20)
