"""The Keys page: the first key of an open server, further keys, revocation, and the way back."""

from collections.abc import Iterator

import httpx
import pytest
from console_browser import ConsolePage, OpenPage
from console_pool import BASE, FLAGS
from playwright.async_api import Page, expect
from servers import Server, lorikeet_up, wait_for

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without keys. Its tests run in order."""
    folder = tmp_path_factory.mktemp("open")
    with lorikeet_up(folder, BASE, *FLAGS, "--adapters", "sql") as server:
        yield server


def status(server: Server, key: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{server.url}/v1/models", headers=headers, timeout=60).status_code


def wait_for_status(server: Server, wanted: int, key: str | None = None) -> None:
    wait_for(lambda: status(server, key) == wanted, server.log_text, server.process, 20)


async def created(page: Page) -> str:
    """Return the secret that the page shows, and close its dialog with the keyboard."""
    secret = page.get_by_label("Secret")
    await expect(secret).to_be_visible()
    value = await secret.input_value()
    while not await page.evaluate("document.activeElement.textContent === 'I have kept it'"):
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    return value


async def test_the_first_key_warns_and_this_tab_goes_on_as_the_administrator(
    open_page: OpenPage, open_server: Server
) -> None:
    console = await open_page(open_server.url)
    page = await console.open("keys")
    await expect(page.get_by_text("answers everybody who can reach it")).to_be_visible()
    await page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog", name="Create the first key")
    await expect(dialog.get_by_text("refuses requests without a key")).to_be_visible()
    await console.check_accessibility()
    await dialog.get_by_label("admin:").uncheck()
    await dialog.get_by_role("button", name="Create").click()
    console.expect_log("status of 4(09|01)")
    await expect(dialog.get_by_role("alert")).to_contain_text("allow_lockout")
    await expect(dialog.get_by_label("nobody could then manage keys")).to_be_visible()
    assert status(open_server) == 200
    await dialog.get_by_label("admin:").check()
    await page.keyboard.press("Enter")
    secret = await created(page)
    await expect(page.locator(".keys tbody tr")).to_contain_text(["admin"])
    await expect(page.get_by_role("button", name="Log out")).to_be_visible()
    wait_for_status(open_server, 401)
    assert status(open_server, secret) == 200
    await page.reload()
    await expect(page.locator(".keys tbody tr")).to_have_count(1)
    await console.check_accessibility()
    await create_a_reader_and_revoke_it_by_keyboard(console, open_page, open_server)
    await open_the_pool(page, open_server, secret)


async def create_a_reader_and_revoke_it_by_keyboard(
    console: ConsolePage, open_page: OpenPage, server: Server
) -> None:
    page = console.page
    await page.get_by_role("button", name="Create a key").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog", name="Create a key")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Tenant")).to_be_focused()
    await page.keyboard.type("team")
    while not await page.evaluate("document.activeElement.id === 'key-models'"):
        await page.keyboard.press("Tab")
    await page.keyboard.type("sql*, other")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.type("60")
    await page.keyboard.press("Enter")
    secret = await created(page)
    row = page.locator(".keys tbody tr").filter(has_text="team")
    await expect(row).to_contain_text("inference")
    await expect(row).to_contain_text("sql*, other")
    await expect(row).to_contain_text("60 requests/min")
    await a_reader_is_told_what_its_key_may_use(open_page, server, secret)
    await row.get_by_role("button", name="Revoke key").focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(row).to_have_count(0)
    wait_for_status(server, 401, secret)
    await page.get_by_label("Show revoked and expired keys").check()
    await expect(row).to_contain_text("revoked")


async def a_reader_is_told_what_its_key_may_use(
    open_page: OpenPage, server: Server, secret: str
) -> None:
    console = await open_page(server.url, width=400, theme="dark")
    console.expect_log("status of 40[13]")
    page = await console.open("keys")
    await page.get_by_label("API key").fill(secret)
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("This key may not see the keys.")).to_be_visible()
    await console.open("usage")
    await expect(page.get_by_role("region", name="Usage")).to_be_visible()
    await expect(page.locator("#usage-tenant")).to_be_hidden()
    await console.check_accessibility()
    await console.check_width()


async def open_the_pool(page: Page, server: Server, secret: str) -> None:
    await page.get_by_role("button", name="Revoke all").click()
    await page.get_by_role("dialog").get_by_role("button", name="Revoke all").click()
    await expect(page.get_by_text("All stored keys are revoked.")).to_be_visible()
    wait_for_status(server, 200)
    assert status(server, secret) in (200, 401)


async def test_the_page_fits_a_telephone(open_page: OpenPage, open_server: Server) -> None:
    wait_for_status(open_server, 200)
    console = await open_page(open_server.url, width=400, theme="dark")
    page = await console.open("keys")
    await page.get_by_label("Show revoked and expired keys").check()
    await expect(page.locator(".keys tbody tr").first).to_be_visible()
    await console.check_accessibility()
    await console.check_width()
    await page.get_by_role("button", name="Create a key").click()
    await console.check_accessibility()
    await console.check_width()
