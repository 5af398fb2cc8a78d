"""Provides the demo model, which is converted once per machine."""

from pathlib import Path

import pytest

from ops.demo.model import demo_model


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    return demo_model()
