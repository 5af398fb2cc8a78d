"""The demo model, converted once on a machine."""

from pathlib import Path

import pytest

from ops.demo.model import demo_model


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """The folder of the demo model."""
    return demo_model()
