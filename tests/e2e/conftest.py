"""Provides one server with one worker for all end-to-end tests."""

from collections.abc import Iterator

import pytest
from served_tiny import TinyModels
from server_fixtures import client, http, models, queue, views
from servers import Server, lorikeet_up, show_logs

__all__ = ["client", "http", "models", "pytest_runtest_makereport", "queue", "server", "views"]

pytest_runtest_makereport = show_logs


@pytest.fixture(scope="session")
def server(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # The tiny models finish every answer within the default grace period.
    flags = *models.flags, "--disconnect-grace-s", "0"
    with lorikeet_up(tmp_path_factory.mktemp("server"), *flags) as server:
        yield server
        assert "Traceback" not in server.log_text()
