"""One server with two workers that are given up fast; each test leaves it whole."""

from collections.abc import Iterator

import pytest
from served_tiny import TinyModels
from server_fixtures import client, models, queue
from servers import Server, lorikeet_up, show_logs

__all__ = ["client", "models", "pytest_runtest_makereport", "queue", "server"]

pytest_runtest_makereport = show_logs

NUM_WORKERS = 2
FLAGS = ("--lease-ms", "1500", "--drain-s", "0.3", "--max-num-seqs", "32")
"""Neither worker could take all of a test's streams."""


@pytest.fixture(scope="session")
def running_server(
    models: TinyModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    flags = (*models.flags, *FLAGS)
    with lorikeet_up(folder, *flags, workers=NUM_WORKERS, redis_folder=folder / "redis") as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest.fixture
def server(running_server: Server) -> Server:
    """The server, with all its workers."""
    running_server.wait_for_workers(NUM_WORKERS)
    return running_server
