"""A job that kills its workers, on the Jobs page."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from console_browser import ConsolePage
from console_pool import get_job, start_jobs
from playwright.async_api import expect
from servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long]

MAX_KILLS = 8


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
