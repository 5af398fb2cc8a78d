"""Fixtures for tests of running servers. Each module defines its `server`."""

from server_fixtures import client, models, views
from servers import show_logs

__all__ = ["client", "models", "pytest_runtest_makereport", "views"]

pytest_runtest_makereport = show_logs
