"""The console around its pages: navigation, keyboard, themes, errors, and the login."""

import asyncio
import sys
from collections.abc import Iterator

import pytest
from console_browser import ConsolePage, OpenPage
from console_pool import BASE, FLAGS, output_of
from playwright.async_api import Page, Route, expect
from servers import Server, lorikeet_up

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


PAGES = ("Pool", "Adapters", "Jobs", "Chat", "Compare", "Usage", "Keys")


async def test_the_hash_selects_the_page_and_the_navigation_marks_it(console: ConsolePage) -> None:
    page = await console.open("pool")
    links = page.get_by_role("navigation", name="Pages").get_by_role("link")
    assert await links.all_text_contents() == list(PAGES)
    for name in reversed(PAGES):
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


async def test_a_console_that_cannot_be_loaded_or_a_page_that_fails_shows_its_error(
    console: ConsolePage,
) -> None:
    console.expect_log("ERR_FAILED")
    page = console.page

    async def break_a_page(route: Route) -> None:
        reply = await route.fetch()
        text = await reply.text()
        start = "const page = new JobsPage(root);"
        assert start in text
        broken = "throw new Error('the page broke');"
        await route.fulfill(response=reply, body=text.replace(start, broken))

    await page.route("**/console.js", lambda route: route.abort())
    await console.open("jobs")
    await expect(page.get_by_role("alert")).to_contain_text("The console's files can't be loaded.")
    await page.unroute_all()
    await page.route("**/console.js", break_a_page)
    await page.reload()
    await expect(page.get_by_role("alert")).to_contain_text("the page broke")
    await page.get_by_role("link", name="Pool").click()
    await expect(page.get_by_role("grid")).to_be_visible()
    await page.unroute_all()


ADMIN_KEY, OTHER_KEY, WRONG_KEY = "a" * 20, "b" * 20, "c" * 20
SEVERAL_REFRESHES_MS, SEVERAL_STEPS_MS = 15_000, 90_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server with API keys."""
    keys = f"admin:{ADMIN_KEY},team:{OTHER_KEY}"
    folder = tmp_path_factory.mktemp("keyed")
    with lorikeet_up(folder, BASE, *FLAGS, "--adapters", "sql", api_key=keys) as server:
        yield server.url


async def open_pool(open_page: OpenPage, url: str, **options: str) -> ConsolePage:
    """Open the Pool page; chromium logs each answer 401 or 403."""
    console = await open_page(url, **options)
    console.expect_log("status of 40[13]")
    await console.open("pool")
    return console


async def log_in(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog", name="Log in")
    await dialog.get_by_label("API key").fill(key)
    await page.keyboard.press("Enter")


async def test_the_pool_is_shown_from_the_right_key_to_the_logout(
    open_page: OpenPage, url: str
) -> None:
    console = await open_pool(open_page, url, theme="dark")
    page = console.page
    await expect(page.get_by_role("dialog", name="Log in")).to_be_visible()
    await console.check_accessibility()
    await log_in(page, WRONG_KEY)
    await expect(page.get_by_role("dialog")).to_contain_text("The server refused this key.")
    await log_in(page, ADMIN_KEY)
    await expect(page.get_by_role("grid")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("grid")).to_be_visible()
    assert await page.evaluate("Object.values(localStorage).length") == 0
    assert await page.evaluate("document.cookie") == ""
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("dialog", name="Log in")).to_be_visible()
    await expect(page.get_by_role("grid")).to_have_count(0)
    assert await page.evaluate("Object.values(sessionStorage).length") == 0


async def test_a_closed_dialog_stays_closed_for_answers_that_were_on_their_way(
    open_page: OpenPage, url: str
) -> None:
    console = await open_page(url)
    console.expect_log("status of 401")
    is_closed = asyncio.Event()

    async def answer_late(route: Route) -> None:
        await is_closed.wait()
        await route.continue_()

    await console.page.route("**/v1/adapters", answer_late)
    # The page is opened and used within this time, too.
    async with console.page.expect_response("**/v1/adapters", timeout=SEVERAL_STEPS_MS):
        page = await console.open("compare")
        await expect(page.get_by_role("dialog", name="Log in")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("alert")).to_contain_text("asks for an API key")
        is_closed.set()
    await page.wait_for_load_state("networkidle")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_key_without_admin_rights_is_told_what_it_may_use(
    open_page: OpenPage, url: str
) -> None:
    page = (await open_pool(open_page, url)).page
    await log_in(page, OTHER_KEY)
    await expect(page.get_by_text("This key may not see the pool.")).to_be_visible()
    await expect(page.get_by_role("main").get_by_role("link")).to_have_text(
        ["Chat", "Compare", "Jobs", "Usage"]
    )


@pytest.mark.parametrize("name", ["pool", "jobs", "adapters"])
async def test_a_page_asks_once_and_waits_for_the_key(
    open_page: OpenPage, url: str, name: str
) -> None:
    console = await open_page(url)
    console.expect_log("status of 401")
    page = console.page
    await page.clock.install()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await console.open(name)
    await expect(page.get_by_role("dialog", name="Log in")).to_be_visible()
    await page.wait_for_load_state("networkidle")
    num_asked = len(asked)
    await page.clock.run_for(SEVERAL_REFRESHES_MS)
    await page.keyboard.press("Escape")
    alert = page.get_by_role("main").get_by_role("alert")
    await expect(alert).to_contain_text("asks for an API key")
    await page.clock.run_for(SEVERAL_REFRESHES_MS)
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(asked) == num_asked, asked
    await alert.get_by_role("button", name="Log in").click()
    await log_in(page, ADMIN_KEY)
    await expect(page.get_by_role("heading", level=2).first).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)
    await page.clock.run_for(SEVERAL_REFRESHES_MS)
    assert len(asked) > num_asked + 1


async def test_the_adapters_page_tells_a_key_without_admin_rights_and_asks_no_more(
    open_page: OpenPage, url: str
) -> None:
    console = await open_page(url)
    console.expect_log("status of 40[13]")
    page = console.page
    await page.clock.install()
    await console.open("adapters")
    await log_in(page, OTHER_KEY)
    await expect(page.get_by_text("This key may not see the adapters.")).to_be_visible()
    link = page.get_by_role("main").get_by_role("link", name="Jobs")
    await link.focus()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.clock.run_for(SEVERAL_REFRESHES_MS)
    await expect(link).to_be_focused()
    assert asked == []


@pytest.mark.long
async def test_the_code_of_a_request_sends_the_first_key_of_the_command_lines_variable(
    open_page: OpenPage, url: str
) -> None:
    console = await open_pool(open_page, url)
    await log_in(console.page, OTHER_KEY)
    page = await console.open("compare")
    await page.get_by_label("Prompt", exact=True).fill("hello")
    await page.get_by_label("Max tokens").fill("5")
    await page.get_by_role("combobox").first.fill("sql")
    await page.get_by_role("button", name="Run").click()
    await page.get_by_role("button", name="Request 1 as code").click()
    curl = await page.get_by_role("region", name="curl").inner_text()
    python = await page.get_by_role("region", name="Python").inner_text()
    for keys in (OTHER_KEY, f"team:{OTHER_KEY},x:{WRONG_KEY}", f"{OTHER_KEY} x:{WRONG_KEY}"):
        await output_of(sys.executable, "-c", python, LORIKEET_API_KEYS=keys)
        assert "[DONE]" in await output_of("sh", "-c", curl, LORIKEET_API_KEYS=keys)
    assert "invalid_api_key" in await output_of("sh", "-c", curl, LORIKEET_API_KEYS=WRONG_KEY)


async def test_a_prompt_typed_before_the_login_does_not_outlive_the_tab(
    open_page: OpenPage, url: str
) -> None:
    console = await open_page(url)
    console.expect_log("status of 401")
    page = await console.open("compare")
    await expect(page.get_by_role("dialog", name="Log in")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.get_by_label("Prompt", exact=True).fill("secret")
    await page.get_by_label("Max tokens").fill("5")
    for index in range(2):
        await page.get_by_role("combobox").nth(index).fill("sql")
    assert await page.evaluate("Object.values(localStorage).length") == 0
    await page.get_by_role("button", name="Run").click()
    await log_in(page, OTHER_KEY)
    await expect(page.locator(".compare-column .badge")).to_have_text(["Done", "Done"])
    await page.close()
    again = await page.context.new_page()
    await again.goto(f"{url}/#/compare")
    await expect(again.get_by_role("dialog", name="Log in")).to_be_visible()
    await expect(again.get_by_label("Prompt", exact=True)).to_have_value("")
