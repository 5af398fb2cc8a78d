"""CPU times of a page's tasks."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page

TRACED = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]


@asynccontextmanager
async def traced_tasks(browser: Browser, page: Page) -> AsyncIterator[list[float]]:
    """Yield a list that holds the CPU times of the page's tasks in ms, once the block has ended.

    Unlike durations, CPU times don't grow if other processes interrupt the browser.
    """
    tasks: list[float] = []
    await browser.start_tracing(page=page, categories=TRACED)
    try:
        yield tasks
    finally:
        events = json.loads(await browser.stop_tracing())["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks += [
        event["tdur"] / 1000
        for event in events
        if event["name"] == "RunTask"
        and "tdur" in event
        and (event["pid"], event["tid"]) in threads
    ]
