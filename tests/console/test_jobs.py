"""The Jobs page: the list, one job's dialog, live answers, cancelling and retrying."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from console_browser import ConsolePage, OpenPage
from console_pool import ADAPTERS, BASE, FLAGS, cancel_jobs, get_job, start_jobs
from playwright.async_api import Page, Route, expect
from servers import Server, lorikeet_up

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

HOSTILE = "<img src=x onerror=document.title=1>"
PER_PAGE = 25


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A pool with room for two running jobs. Its tests use one adapter each."""
    flags = (BASE, *FLAGS, "--max-num-seqs", "2", "--adapters", *ADAPTERS)
    with lorikeet_up(tmp_path_factory.mktemp("narrow"), *flags) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_page: OpenPage, narrow: Server) -> ConsolePage:
    return await open_page(narrow.url)


def row(page: Page, job: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=f"job {job}"))


async def choose(page: Page, *, model: str) -> None:
    await page.get_by_role("combobox", name="Model").fill(model)
    await page.keyboard.press("Enter")


async def test_jobs_are_listed_filtered_and_paged(page: ConsolePage, narrow: Server) -> None:
    ids = start_jobs(narrow, "sql", PER_PAGE + 5, num_tokens=2)
    other = start_jobs(narrow, "pirate", 1, num_tokens=2)
    shown = await page.open("jobs")
    rows = shown.locator(".job")
    await choose(shown, model="sql")
    await expect(rows).to_have_count(PER_PAGE)
    await expect(row(shown, other[0])).to_have_count(0)
    await shown.get_by_role("button", name="Older").click()
    await expect(rows).to_have_count(5)
    await expect(row(shown, ids[0])).to_contain_text(re.compile(r"done.*sql"))
    await expect(shown.get_by_role("button", name="Older")).to_be_disabled()
    await shown.get_by_role("button", name="Newer").click()
    await expect(row(shown, ids[-1])).to_be_visible()
    await choose(shown, model="")
    await shown.get_by_label("failed").check()
    await expect(shown.get_by_text("No jobs here")).to_be_visible()
    await shown.get_by_label("done").check()
    await expect(row(shown, other[0])).to_be_visible()
    await page.check_accessibility()


async def test_waiting_jobs_show_their_position_and_estimate_and_can_be_cancelled(
    page: ConsolePage, narrow: Server
) -> None:
    start_jobs(narrow, "pirate", 6, num_tokens=5)  # recent answers, which estimates need
    running = start_jobs(narrow, "sentiment", 2, num_tokens=2000)
    waiting = start_jobs(narrow, "sentiment", 3, num_tokens=3)
    shown = await page.open("jobs")
    await expect(row(shown, waiting[1])).to_contain_text(
        re.compile(r"queued.*position 2, about \d")
    )
    await row(shown, waiting[1]).get_by_role("button", name="Cancel").click()
    await shown.get_by_role("button", name="Keep it").click()
    assert get_job(narrow, waiting[1])["state"] == "queued"
    await row(shown, waiting[1]).get_by_role("button", name="Cancel").click()
    await shown.get_by_role("button", name="Cancel job", exact=True).click()
    await expect(row(shown, waiting[1])).to_contain_text("cancelled")
    await expect(row(shown, waiting[2])).to_contain_text("position 2")
    await row(shown, running[0]).get_by_role("link").click()
    dialog = shown.get_by_role("dialog", name="Job")
    await dialog.get_by_role("button", name="Cancel job").click()
    confirm = shown.get_by_role("dialog", name="Cancel the running job?")
    await confirm.get_by_role("button", name="Cancel job").click()
    await expect(dialog.locator(".badge")).to_have_text("cancelled")
    cancel_jobs(narrow, running + waiting)


async def test_a_pool_that_the_key_may_not_see_is_asked_for_once(
    page: ConsolePage, narrow: Server
) -> None:
    page.expect_log("status of 403")
    jobs = start_jobs(narrow, "sentiment", 4, num_tokens=2000)
    asked: list[str] = []

    async def refuse(route: Route) -> None:
        asked.append(route.request.url)
        await route.fulfill(status=403, json={"error": {"message": "no", "code": "x"}})

    await page.page.route("**/v1/pool", refuse)
    shown = await page.open("jobs")
    place = row(shown, jobs[3]).locator(".job-place")
    await expect(place).to_have_text("position 2")
    cancel_jobs(narrow, jobs[2:3])
    await expect(place).to_have_text("position 1")
    assert len(asked) == 1
    cancel_jobs(narrow, jobs)
    await shown.unroute_all()


async def test_a_running_job_is_followed_live_and_its_client_keeps_its_answer(
    page: ConsolePage, narrow: Server
) -> None:
    body = {"model": "support", "prompt": "p", "max_tokens": 250, "ignore_eos": True, "seed": 3}
    async with (
        httpx.AsyncClient(base_url=narrow.url, timeout=60) as http,
        http.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply,
    ):
        job = reply.headers["x-lorikeet-job"]
        received = asyncio.ensure_future(reply.aread())
        shown = await page.open(f"jobs/{job}")
        text = shown.get_by_role("region", name="Text of the answer")
        await expect(shown.get_by_role("dialog", name="Job")).to_contain_text("live")
        await expect(text).to_have_text(re.compile("^[0-9a-f]{80,}$"))
        await expect(text).to_have_text(re.compile("^[0-9a-f]{400,}$"))
        await shown.keyboard.press("Escape")
        await expect(shown.get_by_role("dialog")).to_have_count(0)
        assert b"data: [DONE]" in await received
    whole = get_job(narrow, job)
    assert whole["state"] == "done"
    await row(shown, job).get_by_role("link").click()
    await expect(text).to_have_text(whole["choices"][0]["text"])
    await expect(shown.get_by_role("dialog", name="Job")).not_to_contain_text("live")
    await expect(shown.get_by_role("dialog", name="Job")).to_contain_text("1 in, 250 out")
    await page.check_accessibility()


async def test_answers_of_every_endpoint_are_shown_and_stay_text(
    page: ConsolePage, narrow: Server
) -> None:
    messages = [{"role": "user", "content": HOSTILE}]
    asked: dict[str, dict[str, Any]] = {
        "completions": {"prompt": HOSTILE, "echo": True, "background": True},
        "chat/completions": {"messages": messages, "background": True},
        "responses": {"input": HOSTILE, "background": True},
        "messages": {"messages": messages},
        "api/chat": {"messages": messages, "stream": False},
        "api/generate": {"prompt": HOSTILE, "stream": True},
    }
    for endpoint, fields in asked.items():
        size = "max_output_tokens" if endpoint == "responses" else "max_tokens"
        body, path = {"model": "sql", size: 3, **fields}, f"/v1/{endpoint}"
        if endpoint.startswith("api/"):
            body, path = {"model": "sql", "options": {"num_predict": 3}, **fields}, f"/{endpoint}"
        async with httpx.AsyncClient(base_url=narrow.url, timeout=30) as http:
            reply = await http.post(path, json=body)
        assert reply.status_code < 300, reply.text
        job = reply.headers["x-lorikeet-job"]
        shown = await page.open(f"jobs/{job}")
        dialog = shown.get_by_role("dialog", name="Job").filter(has_text=job)
        text = dialog.get_by_role("region", name="Text of the answer")
        start = re.escape(HOSTILE) if endpoint == "completions" else ""
        await expect(text).to_have_text(re.compile(f"^{start}[0-9a-f]{{8,24}}$"))
        assert await shown.locator("main img, dialog img").count() == 0
        await expect(shown).to_have_title("Jobs · Lorikeet")


async def test_a_running_job_of_ollamas_api_is_followed_live(
    page: ConsolePage, narrow: Server
) -> None:
    body = {"model": "support", "prompt": "p", "raw": True, "options": {"num_predict": 600}}
    async with (
        httpx.AsyncClient(base_url=narrow.url, timeout=60) as http,
        http.stream("POST", "/api/generate", json=body) as reply,
    ):
        job = reply.headers["x-lorikeet-job"]
        received = asyncio.ensure_future(reply.aread())
        shown = await page.open(f"jobs/{job}")
        dialog = shown.get_by_role("dialog", name="Job")
        await expect(dialog).to_contain_text("live")
        assert b'"done":true' in await received
    text = shown.get_by_role("region", name="Text of the answer")
    await expect(text).to_have_text(get_job(narrow, job)["answer"]["response"])
    await expect(dialog).not_to_contain_text("live")


async def test_an_unknown_job_says_so(page: ConsolePage) -> None:
    page.expect_log("status of 404")
    for job in ("0123", "%"):  # the second one isn't encoded
        shown = await page.open(f"jobs/{job}")
        await expect(shown.get_by_role("alert")).to_contain_text("doesn't exist or has expired")
        await shown.keyboard.press("Escape")
        await expect(shown).to_have_url(re.compile("#/jobs$"))


async def test_another_job_or_page_closes_the_dialogs(page: ConsolePage, narrow: Server) -> None:
    first, second = start_jobs(narrow, "support", 2, num_tokens=2000)
    shown = await page.open("pool")
    await page.open(f"jobs/{first}")
    dialog = shown.get_by_role("dialog", name="Job")
    await expect(dialog.locator(".job-id")).to_have_text(first)
    await page.open(f"jobs/{second}")
    await expect(dialog).to_have_count(1)
    await expect(dialog.locator(".job-id")).to_have_text(second)
    await shown.evaluate("location.hash = '#/jobs'")
    await expect(shown.get_by_role("dialog")).to_have_count(0)
    await page.open(f"jobs/{first}")
    await dialog.get_by_role("button", name="Cancel job").click()
    await expect(shown.get_by_role("dialog", name="Cancel the")).to_be_visible()
    await shown.evaluate("location.hash = '#/pool'")
    await expect(shown.get_by_role("grid")).to_be_visible()
    await expect(shown.locator("dialog")).to_have_count(0)
    assert get_job(narrow, first)["state"] != "cancelled"
    cancel_jobs(narrow, [first, second])


async def test_a_job_is_followed_once_its_first_read_succeeds(
    page: ConsolePage, narrow: Server
) -> None:
    page.expect_log("net::ERR_FAILED")
    (job,) = start_jobs(narrow, "support", 1, num_tokens=2000)
    await page.page.route(f"**/v1/jobs/{job}", lambda route: route.abort())
    shown = await page.open(f"jobs/{job}")
    dialog = shown.get_by_role("dialog", name="Job")
    await expect(dialog.get_by_role("alert")).to_contain_text("can't be reached")
    await shown.unroute_all()
    await expect(dialog).to_contain_text("live")
    text = shown.get_by_role("region", name="Text of the answer")
    await expect(text).to_have_text(re.compile("^[0-9a-f]{80,}$"))
    await expect(dialog.get_by_role("alert")).to_have_count(0)
    cancel_jobs(narrow, [job])


async def test_a_double_click_on_older_turns_one_page(page: ConsolePage, narrow: Server) -> None:
    ids = start_jobs(narrow, "sentiment", 2 * PER_PAGE + 1, num_tokens=2)
    shown = await page.open("jobs")
    older = shown.get_by_role("button", name="Older")
    answered = asyncio.Event()

    async def hold(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await shown.route("**/v1/jobs?*model=sentiment*", hold)
    await choose(shown, model="sentiment")
    await expect(older).to_be_disabled()
    answered.set()
    await older.dblclick()
    await expect(row(shown, ids[PER_PAGE])).to_be_visible()
    await expect(shown.locator(".pager")).to_contain_text("Page 2")


async def test_ages_are_by_the_clock_of_the_server(page: ConsolePage, narrow: Server) -> None:
    (job,) = start_jobs(narrow, "sql", 1, num_tokens=2)
    await page.page.clock.install(time=time.time() + 7200)
    shown = await page.open("jobs")
    age = row(shown, job).locator("[data-label=Age]")
    await expect(age).to_have_text(re.compile(r"^\d+ (ms|s)$|^\d\.\d s$"))


async def test_the_keyboard_alone_opens_and_closes_a_job(page: ConsolePage, narrow: Server) -> None:
    (job,) = start_jobs(narrow, "sql", 1, num_tokens=2)
    shown = await page.open("jobs")
    link = shown.get_by_role("link", name=f"job {job}")
    await expect(link).to_be_visible()
    for _ in range(60):
        if await link.evaluate("node => node === document.activeElement"):
            break
        await shown.keyboard.press("Tab")
    await shown.keyboard.press("Enter")
    await expect(shown.get_by_role("dialog", name="Job")).to_contain_text(job)
    await shown.keyboard.press("Escape")
    await expect(shown.get_by_role("dialog")).to_have_count(0)
    await expect(link).to_be_focused()


async def test_the_page_fits_a_telephone(open_page: OpenPage, narrow: Server) -> None:
    (job,) = start_jobs(narrow, "sql", 1, num_tokens=2)
    console = await open_page(narrow.url, width=400, theme="dark")
    shown = await console.open("jobs")
    await expect(row(shown, job)).to_be_visible()
    await console.check_width()
    await console.check_accessibility()
    await row(shown, job).get_by_role("link").click()
    await expect(shown.get_by_role("dialog", name="Job")).to_contain_text("done")
    await console.check_width()
    await console.check_accessibility()


MAX_KILLS = 8


@pytest.mark.long
async def test_a_dead_job_is_retried(console: ConsolePage, server: Server) -> None:
    (job,) = start_jobs(server, "pirate", 1, num_tokens=400)
    for _ in range(MAX_KILLS):
        if not await asyncio.to_thread(kill_the_worker_of, server, job):
            break
    shown = await console.open(f"jobs/{job}")
    dialog = shown.get_by_role("dialog", name="Job")
    await expect(dialog.locator(".badge")).to_have_text("dead")
    await dialog.get_by_role("button", name="Retry").click()
    await expect(dialog.locator(".job-id")).not_to_have_text(job)
    await expect(dialog.locator(".badge")).to_have_text("done")
    link = shown.get_by_role("link", name=f"job {job}")
    await expect(shown.get_by_role("row").filter(has=link)).to_contain_text("dead")
    await shown.goto(f"{server.url}/#/pool")
    await expect(shown.get_by_role("grid")).to_be_visible()
    await expect(shown.get_by_role("dialog")).to_have_count(0)


def kill_the_worker_of(server: Server, job: str) -> bool:
    """Kill the workers once one runs the job, and wait until the job leaves it.

    Returns False once the job is dead.
    """
    tries = wait_for_job(server, job, lambda body: body["state"] != "queued")["tries"]
    if get_job(server, job)["state"] == "dead":
        return False
    for worker in server.children("worker"):
        worker.kill()
    wait_for_job(server, job, lambda body: body["state"] == "dead" or body["tries"] > tries)
    return True


def wait_for_job(
    server: Server, job: str, is_met: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while not is_met(body := get_job(server, job)):
        assert time.monotonic() < deadline, body
        time.sleep(0.05)
    return body
