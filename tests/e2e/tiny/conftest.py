"""Provides one server of the tiny models, with one worker, which the tests of this folder share."""

from collections.abc import Iterator

import pytest
from served_tiny import TinyModels
from servers import Server, lorikeet_up


@pytest.fixture(scope="session")
def server(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # The tiny models finish every answer within the default grace period.
    flags = *models.flags, "--disconnect-grace-s", "0"
    with lorikeet_up(tmp_path_factory.mktemp("server"), *flags) as server:
        yield server
        assert "Traceback" not in server.log_text()
