"""The Pool page of a healthy pool."""

import re
from collections.abc import Iterator

import pytest
from console_browser import ConsolePage, OpenPage
from console_pool import ADAPTERS, BASE, cancel_jobs, start_jobs
from playwright.async_api import Page, expect
from servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

NUM_JOBS = 6


@pytest.fixture(scope="module")
def busy_server(server: Server) -> Iterator[Server]:
    """The shared server, with jobs of `sql` that run longer than the tests."""
    ids = start_jobs(server, "sql", NUM_JOBS, num_tokens=20_000)
    yield server
    cancel_jobs(server, ids)


def cells(page: Page, adapter: str) -> str:
    return f'.grid-row:has(.grid-adapter:text-is("{adapter}")) .cell'


async def test_the_grid_the_figures_and_the_table_show_the_pool(
    console: ConsolePage, busy_server: Server
) -> None:
    page = await console.open("pool")
    names = page.locator(".grid-adapter")
    await expect(names).to_have_text([BASE, *ADAPTERS])
    await expect(page.get_by_role("grid").get_by_role("columnheader")).to_have_count(3 + 2)
    await expect(page.locator(cells(page, "pirate"))).to_have_text(["●", "●"])
    running = page.locator(cells(page, "sql"))
    total = "cells => cells.reduce((sum, cell) => sum + (Number(cell.textContent) || 0), 0)"
    await expect(running.filter(has_text="●")).to_have_count(0)
    assert await running.evaluate_all(total) == NUM_JOBS
    label = await running.first.get_attribute("aria-label")
    assert label is not None
    assert label.startswith("sql on ")
    assert "resident" in label
    assert "running" in label

    tiles = page.locator(".tile")
    await expect(tiles.filter(has_text="Workers")).to_contain_text("2")
    await expect(tiles.filter(has_text="Running")).to_contain_text(f"{NUM_JOBS} of 128 slots")
    await expect(page.get_by_role("img")).to_have_count(3)
    # Six jobs produce 50 tokens per second each.
    plot = re.compile(r"Tokens per second: \S+ [1-9]\d\d$")
    await expect(page.get_by_role("img", name=plot)).to_be_visible()
    workers = page.get_by_role("table").get_by_role("row")
    await expect(workers).to_have_count(1 + 2)
    await expect(workers.last).to_contain_text("simulated")
    await expect(workers.last).to_contain_text("alive")
    await console.check_accessibility()
    await console.check_width()

    await page.get_by_label("Order of the adapters").select_option("running")
    await expect(names.first).to_have_text("sql")
    await page.get_by_label("Filter adapters").fill("S")
    await expect(names).to_have_text(["sql", BASE, "sentiment", "support"])
    await page.get_by_label("Filter adapters").fill("nothing")
    await expect(names).to_have_count(0)


async def test_arrow_keys_move_over_the_grid_and_one_cell_is_in_the_tab_order(
    console: ConsolePage, server: Server
) -> None:
    page = await console.open("pool")
    grid = page.get_by_role("grid")
    await expect(page.locator(cells(page, "support"))).to_have_count(2)
    await page.get_by_label("Order of the adapters").focus()
    await page.keyboard.press("Tab")
    await expect(grid.get_by_role("rowheader").first).to_be_focused()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        await page.keyboard.press(key)
    await expect(page.locator(cells(page, "pirate")).last).to_be_focused()
    await expect(page.locator("#grid-readout")).to_contain_text("pirate on ")
    await page.keyboard.press("Home")
    await page.keyboard.press("End")
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("ArrowUp")
    await expect(grid.get_by_role("columnheader").last).to_be_focused()
    await expect(grid.locator('[tabindex="0"]')).to_have_count(1)
    await page.keyboard.press("Tab")
    await expect(grid.locator(":focus")).to_have_count(0)


async def test_the_dark_page_is_accessible_and_fits_a_telephone(
    open_page: OpenPage, busy_server: Server
) -> None:
    console = await open_page(busy_server.url, theme="dark", width=400)
    page = await console.open("pool")
    await expect(page.locator(cells(page, "support"))).to_have_count(2)
    await console.check_accessibility()
    await console.check_width()


async def test_reduced_motion_stops_all_animations(open_page: OpenPage, server: Server) -> None:
    console = await open_page(server.url, reduced_motion="reduce")
    page = await console.open("pool")
    await expect(page.get_by_role("grid")).to_be_visible()
    await expect(page.locator(".incident").first).to_be_visible()
    assert await page.evaluate("document.getAnimations().length") == 0
