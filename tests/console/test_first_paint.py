"""The requests and the CPU time that a new tab needs until its first useful paint."""

import pytest
from console_browser import OpenPage
from console_trace import traced_tasks
from playwright.async_api import Browser, Request, expect
from servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

MAX_REQUESTS = 12
MAX_CPU_MS = 300
ATTEMPTS = 2
RECEIVED_BYTES = """
performance.getEntriesByType("resource")
    .filter(({ name }) => name.includes("/static/"))
    .reduce((sum, { transferSize }) => sum + transferSize, 0)
"""
USEFUL = {
    "pool": ".grid .cell",
    "adapters": ".adapter",
    "jobs": ".pager",
    "chat": ".chat-form",
    "compare": ".compare-column",
    "usage": ".usage-bars svg",
    "keys": ".notice-empty",
}
"""What each page shows at its first useful paint."""


@pytest.mark.parametrize("name", USEFUL)
async def test_few_requests_lead_to_the_first_useful_paint(
    open_page: OpenPage, server: Server, name: str
) -> None:
    console = await open_page(server.url)
    requests: list[Request] = []
    console.page.on("request", lambda request: requests.append(request))
    page = await console.open(name)
    await expect(page.locator(USEFUL[name]).first).to_be_visible()
    assert len(requests) <= MAX_REQUESTS, [request.url for request in requests]
    await page.reload()
    await expect(page.locator(USEFUL[name]).first).to_be_visible()
    assert await page.evaluate(RECEIVED_BYTES) == 0, "the browser has the files"


async def test_the_shell_is_there_before_any_script(open_page: OpenPage, server: Server) -> None:
    console = await open_page(server.url, java_script_enabled=False)
    page = await console.open("pool")
    await expect(page.get_by_role("navigation", name="Pages").get_by_role("link")).to_have_count(7)
    await expect(page.get_by_text("Loading the console")).to_be_visible()


@pytest.mark.long
async def test_the_first_useful_paint_takes_little_cpu_time(
    browser: Browser, open_page: OpenPage, server: Server
) -> None:
    times = [await cpu_ms(browser, open_page, server) for _ in range(ATTEMPTS)]
    assert min(times) < MAX_CPU_MS, times


async def cpu_ms(browser: Browser, open_page: OpenPage, server: Server) -> float:
    """Open the Pool page in a new session, and return the CPU time of its main thread in ms."""
    console = await open_page(server.url)
    async with traced_tasks(browser, console.page) as tasks:
        page = await console.open("pool")
        await page.wait_for_selector(USEFUL["pool"])
    return sum(tasks)
