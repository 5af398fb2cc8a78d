"""Every page in both themes and two widths, with the rights of an administrator and of a reader."""

import re
from collections.abc import Iterator

import httpx
import pytest
from console_browser import OpenPage
from console_pool import ADAPTERS, BASE, FLAGS, start_jobs
from playwright.async_api import Page, expect
from servers import Server, lorikeet_up

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]
PAGES = ("pool", "adapters", "jobs", "chat", "compare", "usage", "keys")
SECRETS = {"admin": "a" * 20, "reader": "b" * 20}
NUM_JOBS = 4
SOME_TEXT = re.compile(".{60,}", re.DOTALL)
"""Text of a page that shows its data, or why it may not have it."""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A pool with API keys, and jobs of both tenants that run, wait and were cancelled."""
    keys = ",".join(f"{tenant}:{secret}" for tenant, secret in SECRETS.items())
    flags = (BASE, *FLAGS, "--max-num-seqs", "2", "--adapters", *ADAPTERS)
    with lorikeet_up(tmp_path_factory.mktemp("keyed"), *flags, api_key=keys) as server:
        started: dict[str, list[str]] = {}
        for secret in SECRETS.values():
            server.api_key = secret
            started[secret] = start_jobs(server, "pirate", NUM_JOBS, num_tokens=20_000)
            _cancel(server, secret, started[secret][-1])
        yield server
        for secret, jobs in started.items():
            _cancel(server, secret, *jobs)


def _cancel(server: Server, secret: str, *jobs: str) -> None:
    headers = {"Authorization": f"Bearer {secret}"}
    for job in jobs:
        httpx.post(f"{server.url}/v1/jobs/{job}/cancel", headers=headers, timeout=60)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("tenant", SECRETS)
async def test_each_page_fits_and_is_accessible(
    open_page: OpenPage, keyed: Server, tenant: str, width: int, theme: str
) -> None:
    console = await open_page(keyed.url, theme=theme, width=width)
    console.expect_log("status of 40[13]")  # before the login, and what only administrators may see
    page = await console.open("adapters")
    await _log_in(page, SECRETS[tenant])
    for name in PAGES:
        await console.open(name)
        await expect(page.get_by_role("heading", level=1)).to_have_text(name.capitalize())
        await expect(page.locator("main")).to_have_text(SOME_TEXT)
        await console.check_accessibility()
        await console.check_width()


async def _log_in(page: Page, secret: str) -> None:
    dialog = page.get_by_role("dialog", name="Log in")
    await dialog.get_by_label("API key").fill(secret)
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
