"""The console around its pages: navigation, keyboard, themes and errors."""

import pytest
from console_browser import ConsolePage, OpenPage
from playwright.async_api import Route, expect
from servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


async def test_the_hash_selects_the_page_and_the_navigation_marks_it(console: ConsolePage) -> None:
    page = await console.open("pool")
    links = page.get_by_role("navigation", name="Pages").get_by_role("link")
    assert await links.all_text_contents() == ["Pool", "Compare", "Adapters", "Jobs"]
    for name in ("Compare", "Adapters", "Jobs", "Pool"):
        await links.filter(has_text=name).click()
        await expect(page).to_have_title(f"{name} · Lorikeet")
        await expect(page.locator("[aria-current=page]")).to_have_text(name)
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)


async def test_the_first_tab_stop_skips_to_the_page(console: ConsolePage) -> None:
    page = await console.open("jobs")
    await expect(page).to_have_title("Jobs · Lorikeet")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    assert page.url.endswith("#/jobs")


async def test_the_chosen_theme_is_remembered(open_page: OpenPage, server: Server) -> None:
    console = await open_page(server.url, theme="light")
    page = await console.open("pool")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = await page.evaluate(background)
    await page.get_by_role("button", name="Use the dark theme").click()
    dark = await page.evaluate(background)
    assert dark != light
    await page.reload()
    await expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()
    assert await page.evaluate(background) == dark


async def test_a_page_that_cannot_be_loaded_or_fails_shows_its_error(console: ConsolePage) -> None:
    console.expect_log("ERR_FAILED")
    broken = "export function mount() { throw new Error('the page broke'); }"

    async def break_page(route: Route) -> None:
        await route.fulfill(body=broken, content_type="text/javascript")

    await console.page.route("**/pages/jobs.js", lambda route: route.abort())
    page = await console.open("jobs")
    await expect(page.get_by_role("alert")).to_contain_text("pages/jobs.js")
    await page.unroute_all()
    await page.route("**/pages/jobs.js", break_page)
    await page.reload()
    await expect(page.get_by_role("alert")).to_contain_text("the page broke")
    await page.get_by_role("link", name="Pool").click()
    await expect(page.get_by_role("grid")).to_be_visible()
