"""Fixtures of the Adapters page: a real engine with a tiny model, and a tab that shows the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from console_adapters import save_adapters, tiny_pool
from console_browser import ConsolePage, OpenPage
from servers import Server


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters for `tiny`."""
    root = tmp_path_factory.mktemp("adapters")
    save_adapters(root)
    return root


@pytest.fixture(scope="session")
def tiny(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real engine with a tiny model and the adapter `start`. All tests share it."""
    with tiny_pool(tmp_path_factory.mktemp("tiny"), root) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def console(open_page: OpenPage, tiny: Server) -> ConsolePage:
    """A tab that shows the Adapters page of `tiny`."""
    console = await open_page(tiny.url)
    await console.open("adapters")
    return console
