"""Provides a server of the tiny models with two workers, which the tests of this folder share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from adapter_traffic import Folders
from served_tiny import TinyModels
from servers import Server, lorikeet_up

from shared.store.redis.connection import Redis, connect

NUM_WORKERS = 2
NUM_KEPT = 1
"""Number of versions that the server keeps beside the current one."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders.save(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the copies. Workers of another Redis would delete those that they don't know."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def server(
    models: TinyModels, folders: Folders, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    roots = "--adapter-root", str(folders.root), "--adapter-root", str(models.folder)
    kept = "--keep-versions", str(NUM_KEPT), "--max-adapter-mb", "1", "--adapter-store", str(store)
    flags = *models.flags, *roots, *kept, "--max-num-seqs", "8"
    with lorikeet_up(tmp_path_factory.mktemp("server"), *flags, workers=NUM_WORKERS) as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest.fixture
async def redis(server: Server) -> AsyncIterator[Redis]:
    client = connect(server.redis.url)
    yield client
    await client.aclose()
