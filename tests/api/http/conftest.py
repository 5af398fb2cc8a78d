"""Settings that a test can change with `raw_client.with_settings`."""

from typing import Any

import pytest

from shared.settings import ApiSettings


@pytest.fixture
def changes() -> dict[str, Any]:
    """Settings that differ for one test; `with_settings` sets them."""
    return {}


@pytest.fixture
def settings(settings: ApiSettings, changes: dict[str, Any]) -> ApiSettings:
    return settings.model_copy(update=changes)
