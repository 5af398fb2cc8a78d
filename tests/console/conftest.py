"""Fixtures of the console's tests: a simulated pool, and pages of a real browser.

Playwright's browser lives in one event loop, so every test module marks its tests
`pytest.mark.asyncio(loop_scope="session")`, and slow or long.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from console_browser import ConsolePage, OpenPage, console_page, running_browser
from console_pool import ADAPTERS, BASE, FLAGS
from playwright.async_api import Browser
from servers import Server, lorikeet_up, show_logs

from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys

__all__ = ["pytest_runtest_makereport"]

pytest_runtest_makereport = show_logs


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A pool of two simulated workers without API keys. Tests share it and leave it healthy."""
    folder = tmp_path_factory.mktemp("server")
    flags = (BASE, *FLAGS, "--adapters", *ADAPTERS)
    with lorikeet_up(folder, *flags, workers=2, redis_folder=folder / "redis") as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Return a function that opens tabs: `await open_page(url, theme="dark", width=400)`.

    After the test, each tab must have sent requests to its server only, and logged nothing.
    """
    async with AsyncExitStack() as stack:

        async def open_one(url: str, **options: Any) -> ConsolePage:
            return await stack.enter_async_context(console_page(browser, url, **options))

        yield open_one


@pytest_asyncio.fixture(loop_scope="session")
async def console(open_page: OpenPage, server: Server) -> ConsolePage:
    """A tab of the shared server, 1280 pixels wide, in the light theme."""
    return await open_page(server.url)


@pytest_asyncio.fixture(loop_scope="session")
async def session_redis(redis_url: str, keys: Keys) -> AsyncIterator[Redis]:
    """Client of Redis in the event loop of the browser. The pool's keys expire with the server."""
    client = connect(redis_url)
    yield client
    await client.aclose()
