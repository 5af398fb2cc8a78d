"""The Pool page of empty and of large pools."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from api_support import running_app
from console_browser import OpenPage
from console_crowd import Crowd
from playwright.async_api import expect

from shared.settings import ApiSettings
from shared.store.connection import Redis, connect
from shared.store.keys import Keys
from shared.store.registry import Registry

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

NUM_ADAPTERS, NUM_WORKERS = 100, 16
RECORD_LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => {
    for (const task of list.getEntries()) longTasks.push(Math.round(task.duration));
}).observe({ type: "longtask", buffered: true });
"""
NUM_CHANGES = """
new Promise((done) => {
    let changes = 0;
    const watch = new MutationObserver((list) => (changes += list.length));
    watch.observe(document.querySelector(".grid"), { childList: true, subtree: true });
    setTimeout(() => done(changes), 4000);
})
"""
TRIES = 3
"""Number of attempts, since other processes can interrupt the browser in a short task."""


@pytest_asyncio.fixture(loop_scope="session")
async def session_redis(redis_url: str, keys: Keys) -> AsyncIterator[Redis]:
    """Client of Redis in the event loop of the browser. The pool's keys expire with the server."""
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def url(redis_url: str, pool: str) -> AsyncIterator[str]:
    """URL of a front end of a pool without workers."""
    async with running_app(ApiSettings(redis_url=redis_url, pool=pool)) as running:
        yield running.url


async def test_a_pool_without_workers_says_how_to_start_one(url: str, open_page: OpenPage) -> None:
    console = await open_page(url)
    page = await console.open("pool")
    await expect(page.get_by_text("No worker is in the pool.")).to_be_visible()
    await expect(page.get_by_text("lorikeet worker")).to_be_visible()
    await console.check_accessibility()


async def test_a_pool_without_adapters_says_how_to_load_one(
    url: str, open_page: OpenPage, session_redis: Redis, keys: Keys
) -> None:
    crowd = Crowd(session_redis, keys, num_workers=1, num_adapters=0)
    await crowd.register()
    page = await (await open_page(url)).open("pool")
    await expect(page.get_by_text("No adapter is registered.")).to_be_visible()
    await expect(page.locator(".grid-adapter")).to_have_text(["base"])
    await Registry(session_redis, keys).add_adapter(
        Crowd(session_redis, keys, num_workers=0, num_adapters=1).adapters[0]
    )
    await expect(page.get_by_text("No adapter is registered.")).to_be_hidden()
    await expect(page.locator(".grid-adapter")).to_have_count(2)


async def test_the_console_works_below_a_root_path(
    redis_url: str, pool: str, open_page: OpenPage
) -> None:
    settings = ApiSettings(redis_url=redis_url, pool=pool, root_path="/lorikeet")
    async with running_app(settings) as running:
        console = await open_page(f"{running.url}/lorikeet")
        paths: list[str] = []
        console.page.on("request", lambda request: paths.append(urlsplit(request.url).path))
        page = await console.open("pool")
        await expect(page.get_by_text("No worker is in the pool.")).to_be_visible()
        assert "/lorikeet/v1/pool/events" in paths
        assert all(path.startswith("/lorikeet/") for path in paths)
        await page.close()


async def test_100_adapters_on_16_workers_update_without_a_long_task(
    url: str, open_page: OpenPage, session_redis: Redis, keys: Keys
) -> None:
    crowd = Crowd(session_redis, keys, num_workers=NUM_WORKERS, num_adapters=NUM_ADAPTERS)
    await crowd.register()
    changes = asyncio.create_task(crowd.change_for_ever())
    try:
        found = [await long_tasks(open_page, url) for _ in range(TRIES)]
    finally:
        changes.cancel()
    assert min(found, key=len) == [], found


async def long_tasks(open_page: OpenPage, url: str) -> list[int]:
    """Return the tasks over 50 ms while the page is loaded and follows the pool for 4 s, in ms."""
    console = await open_page(url)
    await console.page.add_init_script(RECORD_LONG_TASKS)
    page = await console.open("pool")
    await expect(page.locator(".cell-resident").first).to_be_visible()
    await expect(page.locator(".grid .cell")).to_have_count((NUM_ADAPTERS + 1) * NUM_WORKERS)
    assert await page.evaluate(NUM_CHANGES) > 500
    durations: list[int] = await page.evaluate("longTasks")
    await page.close()
    return durations
