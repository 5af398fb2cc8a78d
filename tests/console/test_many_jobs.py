"""The Jobs page with two rights: filters, search, timelines, many jobs at once."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from api_support import BASE, ScriptedWorker, register_models, running_app
from console_browser import ConsolePage, OpenPage
from playwright.async_api import Locator, Page, expect
from pydantic import SecretStr

from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.adapters.residency import ResidencyStore
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

ADMIN, TEAM = "a" * 20, "b" * 20
ERROR = JobError(code=ErrorCode.INTERNAL, message="the engine failed")


class Jobs:
    """A front end with two tenants, and jobs that fail or wait as a test asks for."""

    def __init__(self, url: str, worker: ScriptedWorker) -> None:
        self.url = url
        self._worker = worker

    async def send(self, key: str, model: str, count: int) -> list[str]:
        """Send background requests, and return the ids of their jobs."""
        headers = {"Authorization": f"Bearer {key}"}
        body = {"model": model, "prompt": "hello", "background": True}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30) as http:
            replies = [await http.post("/v1/completions", json=body) for _ in range(count)]
        return [reply.json()["id"] for reply in replies]

    async def fail(self, key: str, model: str, count: int) -> list[str]:
        """Send requests whose jobs fail with a server error."""
        ids = await self.send(key, model, count)
        for _ in ids:
            await self._worker.fail(await self._worker.take(), ERROR)
        return ids


@pytest_asyncio.fixture(loop_scope="session")
async def jobs(redis_url: str, pool: str, session_redis: Redis, keys: Keys) -> AsyncIterator[Jobs]:
    await register_models(Registry(session_redis, keys))
    residency = ResidencyStore(session_redis, keys)
    worker = await ScriptedWorker.start(Queue(session_redis, keys, residency=residency))
    api_keys = (SecretStr(f"admin:{ADMIN}"), SecretStr(f"team:{TEAM}"))
    settings = ApiSettings(redis_url=redis_url, pool=pool, api_keys=api_keys)
    async with running_app(settings) as running:
        yield Jobs(running.url, worker)


async def log_in(open_page: OpenPage, url: str, key: str, **options: Any) -> ConsolePage:
    """Open a tab that has the key, on the Jobs page."""
    console = await open_page(url, **options)
    console.expect_log("status of 40[13]")
    page = await console.open("jobs")
    await page.get_by_label("API key").fill(key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    return console


def rows(page: Page) -> Locator:
    return page.locator(".job")


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element with this text or label has the focus."""
    for _ in range(80):
        focused = "document.activeElement.ariaLabel ?? document.activeElement.textContent"
        if (await page.evaluate(focused)).strip() == name:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"{name} isn't reached")


async def test_an_administrator_filters_all_tenants_jobs_and_the_link_keeps_the_filters(
    open_page: OpenPage, jobs: Jobs
) -> None:
    await jobs.fail(TEAM, BASE.name, 2)
    (own,) = await jobs.fail(ADMIN, "extract", 1)
    (waiting,) = await jobs.send(TEAM, BASE.name, 1)
    console = await log_in(open_page, jobs.url, ADMIN)
    page = console.page
    await expect(rows(page)).to_have_count(4)
    await page.get_by_label("failed").check()
    await expect(rows(page)).to_have_count(3)
    await page.get_by_label("Tenant").fill("team")
    await page.keyboard.press("Enter")
    await expect(rows(page)).to_have_count(2)
    await expect(rows(page).first).to_contain_text("team")
    await page.get_by_role("searchbox", name="Error code").fill("internal_error")
    await page.keyboard.press("Enter")
    await page.get_by_label("Newer than").select_option("1 hour")
    await expect(page).to_have_url(
        re.compile("state=failed&tenant=team&error_code=internal_error&max_age_s=3600$")
    )
    await console.check_accessibility()
    await page.reload()
    await expect(rows(page)).to_have_count(2)
    await expect(page.get_by_label("Tenant")).to_have_value("team")
    await page.evaluate("location.hash = '#/jobs?state=queued'")
    await expect(rows(page)).to_have_count(1)
    await expect(rows(page)).to_contain_text(waiting[:8])
    await page.get_by_label("Older than").select_option("1 day")
    await expect(page.get_by_text("No jobs here")).to_be_visible()
    await page.evaluate("location.hash = '#/jobs?error_code=nonsense'")
    await expect(page.get_by_role("alert")).to_contain_text("error_code")
    console.expect_log("status of 400")
    await page.get_by_label("Job id").fill(own)
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Job")
    await expect(dialog.locator(".job-id")).to_have_text(own)
    events = dialog.locator(".timeline li")
    await expect(events).to_contain_text(["Accepted", "Queued", "Claimed", "Failed"])
    await expect(events.last).to_contain_text("internal_error")
    await console.check_accessibility()


async def test_many_jobs_are_cancelled_and_retried_by_keyboard_after_a_preview(
    open_page: OpenPage, jobs: Jobs
) -> None:
    failed = await jobs.fail(TEAM, "extract", 3)
    others = await jobs.fail(ADMIN, "extract", 1)
    console = await log_in(open_page, jobs.url, ADMIN)
    page = console.page
    await page.evaluate("location.hash = '#/jobs?tenant=team&state=failed'")
    await expect(rows(page)).to_have_count(3)
    await tab_to(page, "Retry all …")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Retry jobs")
    await expect(dialog).to_contain_text("3 jobs will be retried.")
    await console.check_accessibility()
    await page.keyboard.press("Escape")
    await expect(rows(page)).to_have_count(3)
    await tab_to(page, "Retry all …")
    await page.keyboard.press("Enter")
    await expect(dialog).to_be_visible()
    await tab_to(page, "Retry jobs: 3")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("3 jobs retried.")).to_be_visible()
    await page.evaluate("location.hash = '#/jobs?tenant=team&state=queued'")
    await expect(rows(page)).to_have_count(3)
    await page.get_by_role("button", name="Cancel all").click()
    cancelling = page.get_by_role("dialog", name="Cancel jobs")
    await expect(cancelling).to_contain_text("3 jobs will be cancelled.")
    await cancelling.get_by_role("button", name="Cancel jobs: 3").click()
    await expect(page.get_by_text("3 jobs cancelled.")).to_be_visible()
    await expect(page.get_by_text("No jobs here")).to_be_visible()
    await page.get_by_role("button", name="Cancel all").click()
    await expect(cancelling).to_contain_text("No jobs will be cancelled.")
    await expect(cancelling.get_by_role("button", name="Cancel jobs")).to_be_disabled()
    await page.keyboard.press("Escape")
    await page.evaluate(f"location.hash = '#/jobs/{failed[0]}'")
    await page.get_by_role("dialog").get_by_role("link", name=re.compile("^[0-9a-f]{32}$")).click()
    await expect(page.get_by_role("dialog").locator(".badge")).to_have_text("cancelled")
    await page.evaluate(f"location.hash = '#/jobs/{others[0]}'")
    await expect(page.get_by_role("dialog").locator(".badge")).to_have_text("failed")


async def test_a_reader_sees_and_cancels_its_own_jobs_only_also_on_a_telephone(
    open_page: OpenPage, jobs: Jobs
) -> None:
    (foreign,) = await jobs.send(ADMIN, "extract", 1)
    await jobs.send(TEAM, "extract", 2)
    console = await log_in(open_page, jobs.url, TEAM, width=400, theme="dark")
    page = console.page
    await expect(rows(page)).to_have_count(2)
    await expect(page.get_by_label("Tenant")).to_be_hidden()
    await console.check_accessibility()
    await console.check_width()
    await page.get_by_role("button", name="Cancel all").click()
    dialog = page.get_by_role("dialog", name="Cancel jobs")
    await dialog.get_by_role("button", name="Cancel jobs: 2").click()
    await expect(page.get_by_text("2 jobs cancelled.")).to_be_visible()
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(base_url=jobs.url, headers=headers) as http:
        assert (await http.get(f"/v1/jobs/{foreign}")).json()["state"] == "queued"


async def test_an_administrator_sees_another_tenants_job_without_its_answer(
    open_page: OpenPage, jobs: Jobs
) -> None:
    (job,) = await jobs.send(TEAM, "extract", 1)
    console = await log_in(open_page, jobs.url, ADMIN)
    console.expect_log("status of 404")
    page = await console.open(f"jobs/{job}")
    dialog = page.get_by_role("dialog", name="Job")
    await expect(dialog).to_contain_text("Answers of other tenants aren't shown.")
    await expect(dialog).to_contain_text("team")
    await dialog.get_by_role("button", name="Cancel job").click()
    await (
        page.get_by_role("dialog", name="Cancel the waiting job?")
        .get_by_role("button", name="Cancel job")
        .click()
    )
    await expect(dialog.locator(".badge")).to_have_text("cancelled")
