"""The Pool page while parts of the pool die: workers, front ends and Redis."""

import os
import signal
from collections.abc import Iterator

import httpx
import pytest
from console_browser import RECORD_ANNOUNCEMENTS, ConsolePage, OpenPage
from console_pool import cancel_jobs, start_jobs
from playwright.async_api import Page, expect
from servers import Server, pid_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

NUM_JOBS = 8
RUNNING_IN_COLUMN = """
([column, adapter]) => [...document.querySelectorAll(".grid-row")]
    .filter((row) => row.querySelector(".grid-adapter")?.textContent === adapter)
    .map((row) => Number(row.querySelectorAll(".cell")[column].textContent) || 0)[0]
"""
"""Number of running jobs that the grid shows for one worker and adapter."""
SET_HIDDEN = """
(isHidden) => {
    Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}
"""
"""What the browser does to a tab that another one covers; without a window it never does."""


@pytest.fixture
def server(server: Server) -> Iterator[Server]:
    """The shared server, with two workers before and after the test."""
    server.wait_for_workers(2)
    yield server
    server.wait_for_workers(2)


async def test_the_jobs_of_a_killed_worker_are_seen_moving(
    console: ConsolePage, server: Server
) -> None:
    ids = start_jobs(server, "sql", NUM_JOBS, num_tokens=20_000)
    await console.page.add_init_script(RECORD_ANNOUNCEMENTS)
    page = await console.open("pool")
    await expect(page.locator(".tile", has_text="Running")).to_contain_text(f"{NUM_JOBS} of")
    worker, running = busiest_worker(server)
    await expect(page.locator(".grid .cell-running").first).to_be_visible()
    old_column = await column_of(page, worker)

    os.kill(pid_of(worker), signal.SIGKILL)

    lost = page.locator(".incident[data-kind=worker_lost]").first
    await expect(lost).to_contain_text(f"Worker {short(worker)} was lost: its {running} job")
    await page.wait_for_function("announced.some((text) => text.includes('was lost'))")
    head = page.locator(f'.grid-worker:has-text("{short(worker)}")')
    await expect(head).to_have_attribute("data-gone", "lost")
    await page.wait_for_function(
        f"() => [...document.querySelectorAll('.grid .cell-running')]"
        f".reduce((sum, cell) => sum + Number(cell.textContent), 0) === {NUM_JOBS}"
    )
    assert await page.evaluate(RUNNING_IN_COLUMN, [await column_of(page, worker), "sql"]) == 0
    assert old_column >= 0
    await expect(head).to_have_count(0)  # after a while, the column goes
    cancel_jobs(server, ids)


@pytest.mark.long
async def test_a_loss_of_the_front_end_or_of_redis_is_shown_until_it_is_back(
    console: ConsolePage, server: Server
) -> None:
    console.expect_log("net::ERR_|status of 503")
    page = await console.open("pool")
    grid, warning = page.get_by_role("grid"), page.locator(".notice-warn")
    await expect(grid).to_be_visible()

    server.children("api")[0].kill()
    await expect(page.get_by_text("The front end can't be reached.").first).to_be_visible()
    await expect(grid).to_be_visible()
    await expect(warning).to_be_hidden()

    front_end = server.children("api")[0]
    front_end.suspend()
    try:
        await expect(warning).to_contain_text("can't be reached")
    finally:
        front_end.resume()
    await expect(warning).to_be_hidden()

    server.kill_redis()
    try:
        await expect(warning).to_contain_text("Redis")
        await expect(grid).to_be_visible()
        await console.check_accessibility()
    finally:
        server.start_redis_again()
    await expect(warning).to_be_hidden()


AWAY = "can't be reached"
PAGES = {
    "adapters": ".adapter",
    "jobs": ".pager",
    "usage": ".usage-bars svg",
    "keys": ".notice-empty",
    "compare": ".compare-column",
    "chat": ".chat-form",
}
"""What each page shows while Redis answers."""


@pytest.mark.long
async def test_every_page_says_that_redis_is_away_and_goes_on_once_it_is_back(
    console: ConsolePage, open_page: OpenPage, server: Server
) -> None:
    tabs = {name: await open_page(server.url) for name in PAGES}
    for name, tab in tabs.items():
        tab.expect_log("status of 503")
        page = await tab.open(name)
        await expect(page.locator(PAGES[name]).first).to_be_visible()
    server.kill_redis()
    try:
        for tab in tabs.values():
            await tab.page.reload()
            await expect(tab.page.get_by_role("alert").first).to_contain_text(AWAY)
            await tab.check_accessibility()
    finally:
        server.start_redis_again()
    server.wait_for_workers(2)
    for name, tab in tabs.items():
        await expect(tab.page.get_by_role("alert")).to_have_count(0)
        await expect(tab.page.locator(PAGES[name]).first).to_be_visible()


async def test_a_front_end_that_is_silent_from_the_start_is_shown(
    console: ConsolePage, server: Server
) -> None:
    console.expect_log("net::ERR_")
    await console.page.clock.install()
    page = await console.open("compare")
    await expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    front_end = server.children("api")[0]
    front_end.suspend()
    try:
        await console.open("pool")
        await expect(page.get_by_text("Reading the pool")).to_be_visible()
        await page.clock.fast_forward(11_000)
        await expect(page.locator(".notice-warn")).to_contain_text("can't be reached")
    finally:
        front_end.resume()
    await expect(page.get_by_role("grid")).to_be_visible()


async def test_a_hidden_tab_has_no_stream(console: ConsolePage, server: Server) -> None:
    page = await console.open("pool")
    await expect(page.get_by_role("grid")).to_be_visible()
    async with page.expect_event("requestfailed") as closed:
        await page.evaluate(SET_HIDDEN, True)
    assert (await closed.value).url.endswith("/v1/pool/events")
    async with page.expect_request("**/v1/pool/events"):
        await page.evaluate(SET_HIDDEN, False)
    await expect(page.locator(".notice-warn")).to_have_count(0)


def busiest_worker(server: Server) -> tuple[str, int]:
    """Return the id of the worker with the most jobs, and their number."""
    workers = httpx.get(f"{server.url}/v1/pool", timeout=60).json()["workers"]
    worker = max(workers, key=lambda each: each["running"])
    return worker["id"], worker["running"]


def short(worker: str) -> str:
    return worker.split(":")[-1][:4]


async def column_of(page: Page, worker: str) -> int:
    """Return the place of a worker's column, once the grid shows it."""
    await expect(page.locator(f'.grid-worker:has-text("{short(worker)}")')).to_be_visible()
    heads = await page.locator(".grid-worker").all_text_contents()
    return heads.index(short(worker))
