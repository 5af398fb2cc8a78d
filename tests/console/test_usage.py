"""The Usage page: tokens by day, tenant and adapter, and their CSV."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from console_browser import OpenPage
from console_pool import BASE, FLAGS
from playwright.async_api import expect
from servers import Server, lorikeet_up

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

ADMIN, TEAM = "a" * 20, "b" * 20
TOKENS = {"prompt": "hi", "max_tokens": 7, "ignore_eos": True}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which two tenants have used two adapters."""
    keys = f"admin:{ADMIN},team:{TEAM}"
    folder = tmp_path_factory.mktemp("used")
    with lorikeet_up(folder, BASE, *FLAGS, "--adapters", "sql", "pirate", api_key=keys) as server:
        for key, model in ((ADMIN, "sql"), (TEAM, "sql"), (TEAM, "pirate")):
            headers = {"Authorization": f"Bearer {key}"}
            body = {"model": model, **TOKENS}
            url = f"{server.url}/v1/completions"
            httpx.post(url, json=body, headers=headers, timeout=60).raise_for_status()
        yield server


async def test_an_administrator_sees_groups_and_filters_them_by_keyboard_and_link(
    open_page: OpenPage, used: Server, tmp_path: Path
) -> None:
    console = await open_page(used.url)
    console.expect_log("status of 401")
    page = await console.open("usage")
    await page.get_by_label("API key").fill(ADMIN)
    await page.keyboard.press("Enter")
    rows = page.locator(".usage tbody tr")
    await expect(rows).to_have_count(3)
    await expect(page.locator(".panel-note")).to_contain_text("3 requests")
    await expect(page.locator(".panel-note")).to_contain_text("21 answer tokens")
    await page.get_by_label("Day", exact=True).focus()
    await page.keyboard.press("Space")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(rows).to_have_text(["pirate1207", "sql24014"])
    await page.locator("#usage-tenant").fill("team")
    await page.keyboard.press("Enter")
    await expect(rows).to_have_count(2)
    await expect(rows.last).to_have_text("sql1207")
    await console.check_accessibility()
    await page.reload()
    await expect(rows.last).to_have_text("sql1207")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download CSV").click()
    file = await download.value
    today = datetime.now(UTC).date().isoformat()
    assert file.suggested_filename.endswith(f"{today}.csv")
    await file.save_as(tmp_path / "usage.csv")
    table = list(csv.DictReader((tmp_path / "usage.csv").read_text().splitlines()))
    assert [(row["model"], row["completion_tokens"]) for row in table] == [
        ("pirate", "7"),
        ("sql", "7"),
    ]


async def test_a_reader_sees_its_own_tenant_on_a_telephone(
    open_page: OpenPage, used: Server
) -> None:
    console = await open_page(used.url, width=400, theme="dark")
    console.expect_log("status of 40[13]")
    page = await console.open("usage")
    await page.get_by_label("API key").fill(TEAM)
    await page.keyboard.press("Enter")
    await expect(page.locator(".usage tbody tr")).to_have_count(2)
    await expect(page.locator(".usage tbody")).not_to_contain_text("admin")
    await expect(page.locator("#usage-tenant")).to_be_hidden()
    await console.check_accessibility()
    await console.check_width()
