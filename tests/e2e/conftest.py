"""Fixtures for tests of running servers. Each folder or module defines its `server`."""

from server_fixtures import client, http, models, views
from servers import show_logs

__all__ = ["client", "http", "models", "pytest_runtest_makereport", "views"]

pytest_runtest_makereport = show_logs
