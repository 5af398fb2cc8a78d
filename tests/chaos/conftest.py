"""A server with two workers and a short lease. The tests share it."""

from collections.abc import Iterator

import pytest
from served_tiny import TinyModels
from server_fixtures import client, models, queue, views
from servers import Server, lorikeet_up, show_logs

__all__ = ["client", "models", "pytest_runtest_makereport", "queue", "server", "views"]

pytest_runtest_makereport = show_logs

NUM_WORKERS = 2
FLAGS = ("--lease-ms", "1500", "--drain-s", "0.3", "--max-num-seqs", "32")
"""With --max-num-seqs 32 one worker can't run all streams of a test."""


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
    """The shared server, once all its workers are registered."""
    running_server.wait_for_workers(NUM_WORKERS)
    return running_server
