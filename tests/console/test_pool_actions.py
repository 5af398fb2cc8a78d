"""The Pool page to act on: pauses and drains, links, slots, and plots of an hour and a day."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from console_browser import ConsolePage, OpenPage
from console_pool import cancel_jobs, get_job, start_jobs
from playwright.async_api import Locator, Page, expect
from servers import Server, wait_for

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


@pytest.fixture
def server(server: Server) -> Iterator[Server]:
    """The shared server, whose workers and adapters serve again after the test."""
    server.wait_for_workers(2)
    yield server
    for worker in pool_of(server)["workers"]:
        httpx.post(f"{server.url}/v1/workers/{worker['id']}/resume", timeout=60)
    httpx.post(f"{server.url}/v1/adapters/sql/resume", timeout=60)


def pool_of(server: Server) -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(f"{server.url}/v1/pool", timeout=60).json()
    return body


def row_of(page: Page, worker: str) -> Locator:
    return page.locator(f'.workers-table tr[data-worker="{worker}"]')


async def press(page: Page, button: Locator, key: str = "Enter") -> None:
    await button.focus()
    await page.keyboard.press(key)


async def test_a_worker_is_paused_drained_and_resumed(console: ConsolePage, server: Server) -> None:
    name = pool_of(server)["workers"][0]["name"]
    page = await console.open("pool")
    row = row_of(page, name)
    await row.get_by_role("button", name=f"Pause worker {name}").click()
    await expect(row.locator(".badge")).to_have_text("paused")
    await press(page, row.get_by_role("button", name=f"Resume worker {name}"))
    await expect(row.locator(".badge")).to_have_text("alive")
    await press(page, row.get_by_role("button", name=f"Drain worker {name}"))
    dialog = page.get_by_role("dialog", name=f"Drain worker {name}?")
    await expect(dialog).to_contain_text("continue on other workers")
    await console.check_accessibility()
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    await expect(row.locator(".badge")).to_have_text("alive")
    await press(page, row.get_by_role("button", name=f"Drain worker {name}"))
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(row.locator(".badge")).to_have_text("draining")
    await row.get_by_role("button", name="Resume").click()
    await expect(row.locator(".badge")).to_have_text("alive")


async def test_an_adapter_is_paused_in_the_grid_and_resumed_on_its_page(
    console: ConsolePage, server: Server
) -> None:
    page = await console.open("pool")
    name = page.locator('.grid-adapter:text-is("sql")')
    await expect(name).to_be_visible()
    await name.focus()
    await page.keyboard.press("End")
    await expect(page.get_by_role("button", name="Pause sql")).to_be_focused()
    await page.keyboard.press("Enter")
    row = page.locator(".grid-row.is-paused")
    await expect(row.locator(".grid-tag")).to_have_text("paused")
    (job,) = start_jobs(server, "sql", 1, num_tokens=2)
    await expect(row.locator(".has-jobs")).to_have_text("1")
    await console.check_accessibility()
    await name.click()
    await expect(page).to_have_url(re.compile("#/adapters/sql$"))
    await page.get_by_role("button", name="Resume", exact=True).click()
    await expect(page.locator(".done-text")).to_have_text("Requests for sql are answered again.")
    wait_for(lambda: get_job(server, job)["state"] == "done", server.log_text, server.process, 20)
    await page.get_by_role("button", name="Pause", exact=True).click()
    await expect(page.locator(".adapter .badge-warn")).to_have_text("paused")


async def test_names_of_workers_and_adapters_are_links(
    console: ConsolePage, server: Server
) -> None:
    page = await console.open("pool")
    worker = pool_of(server)["workers"][1]["name"]
    await page.locator(".grid-worker").get_by_role("link").filter(has_text=worker).click()
    await expect(row_of(page, worker)).to_have_attribute("aria-current", "true")
    await expect(row_of(page, worker).get_by_role("button").first).to_be_focused()
    incident = page.locator(".incident").filter(has_text="joined").filter(has_text=worker).first
    await incident.get_by_role("link", name=worker).click()
    (job,) = start_jobs(server, "sql", 1, num_tokens=2)
    wait_for(lambda: get_job(server, job)["state"] == "done", server.log_text, server.process, 20)
    used = get_job(server, job)["worker"]
    await console.open(f"jobs/{job}")
    await page.get_by_role("dialog").get_by_role("link", name=used).first.click()
    await expect(row_of(page, used)).to_have_attribute("aria-current", "true")


async def test_each_answer_of_a_job_uses_a_slot(console: ConsolePage, server: Server) -> None:
    ids = start_jobs(server, "pirate", 1, num_tokens=20_000, n=3)
    page = await console.open("pool")
    await expect(page.locator(".tile", has_text="Running")).to_contain_text("1 3 of 128 slots")
    await expect(page.locator(".workers-table")).to_contain_text("1 job, 3 of 64 slots")
    cancel_jobs(server, ids)


async def test_plots_of_an_hour_and_a_day_have_marks_of_incidents(
    console: ConsolePage, open_page: OpenPage, server: Server
) -> None:
    start_jobs(server, "sql", 3, num_tokens=50)
    page = await console.open("pool")
    plots = page.get_by_role("region", name="Plots")
    await expect(plots.get_by_role("img")).to_have_count(3)
    await expect(plots.locator(".chart-mark-good").first).to_have_attribute("d", re.compile("M"))
    await press(page, plots.get_by_role("button", name="1h"))
    await expect(plots.get_by_role("img")).to_have_count(4)
    await expect(plots.get_by_text("1 h ago").first).to_be_visible()
    mark = plots.locator(".chart-mark-good").first
    await expect(mark).to_have_attribute("d", re.compile("M"))
    box = await plots.get_by_role("img").first.bounding_box()
    assert box is not None
    place = re.match(r"M([\d.]+)", await mark.get_attribute("d") or "")
    assert place is not None
    x = box["x"] + float(place[1]) / 600 * box["width"]
    await page.mouse.move(x, box["y"] + 20)
    await expect(plots.locator(".chart-note").first).to_contain_text("joined")
    await expect(page).to_have_url(re.compile(r"window=1h"))
    await console.check_accessibility()
    await page.reload()
    await expect(plots.get_by_role("button", name="1h")).to_have_attribute("aria-pressed", "true")
    await plots.get_by_role("button", name="24h").click()
    await expect(plots.get_by_text("24 h ago").first).to_be_visible()
    narrow = await open_page(server.url, width=400, theme="dark")
    await narrow.open("pool?window=1h")
    await expect(narrow.page.get_by_role("img")).to_have_count(4)
    await narrow.check_accessibility()
    await narrow.check_width()
