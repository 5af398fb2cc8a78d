"""`python -m ops.lab.generate.console_screenshots`: the pictures of the console in ops/docs.

The Pool page shows a simulated pool under load, after one of its workers was killed. The other
pages show the demo. It needs Chromium and takes about seven minutes.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
from playwright.async_api import Browser, Page, async_playwright, expect

from ops.local.ports import free_port
from ops.local.up import lorikeet_argv

DEMO_SQL = Path(__file__).parents[2] / "demo" / "adapters" / "sql"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
THEMES = ("dark", "light")
POLL_S = 0.2
START_TIMEOUT_S = 180.0
TIMEOUT_MS = 120_000

ADAPTERS = (
    *("billing-de", "billing-en", "billing-fr", "code-review", "contracts", "extract", "faq-acme"),
    *("faq-globex", "legal-summary", "meeting-notes", "moderation", "pirate", "returns"),
    *("sentiment", "sql", "support-acme", "support-globex", "tone-formal", "translate-ja"),
)
SIMULATED = (
    *("simulated-8b", "--engine", "simulated", "--workers", "6", "--max-num-seqs", "12"),
    *("--simulated-step-ms", "45", "--simulated-load-ms", "900"),
    *("--adapter-memory-mb", "4", "--adapter-host-mb", "7", "--lease-ms", "2000"),
)
CLIENTS = 88
LOAD_S = 290.0
"""Seconds of load before the pictures. The plots show five minutes."""
AFTER_KILL_S = 3.0
"""Seconds from the death of a worker to the picture, which still shows the worker's column."""

NUM_PAIRS = 3
"""Number of requests that are sent to each adapter of the demo.

The adapter `sql` has a shadow that gets a copy of each request. This is therefore also the number
of compared pairs of answers.
"""
PROMPTS = {
    "sql": "Which ten customers ordered most often this year?",
    "extract": "Please send 31 monitors to Jonas Dubois in Osaka.",
    "sentiment": "The delivery was late, but the support was wonderful.",
    "pirate": "How do I reset my password?",
}


async def write_pictures() -> None:
    """Write all pictures to `IMAGES`."""
    IMAGES.mkdir(exist_ok=True)
    async with _browser() as browser:
        with _server(*SIMULATED, "--adapters", *ADAPTERS) as url:
            await _with_load(url, lambda: _pool_pictures(browser, url))
        with _server("demo") as url:
            await _demo_pictures(browser, url)


async def _pool_pictures(browser: Browser, url: str) -> None:
    pages = [await _open(browser, url, theme, "pool") for theme in THEMES]
    await asyncio.sleep(LOAD_S)
    await _kill_a_worker(url)
    for page, theme in zip(pages, THEMES, strict=True):
        await page.wait_for_selector(".grid-worker[data-gone=lost]")
        await asyncio.sleep(AFTER_KILL_S / len(THEMES))
        await _shoot(page, "pool", theme)
    narrow = await _open(browser, url, "dark", "pool", width=400)
    await narrow.wait_for_selector(".cell-running")
    await narrow.locator(".grid-panel").scroll_into_view_if_needed()
    await _shoot(narrow, "pool-narrow", "dark")


async def _kill_a_worker(url: str) -> None:
    """Kill the busiest worker with SIGKILL."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        workers = (await http.get("/v1/pool")).json()["workers"]
    busiest = max(workers, key=lambda worker: int(worker["running"]))
    os.kill(int(busiest["id"].split(":")[1]), signal.SIGKILL)


async def _with_load(url: str, act: Callable[[], Awaitable[None]]) -> None:
    """Call `act` while clients request the adapters, some of them more often than others."""
    names = random.Random(5).sample(ADAPTERS, len(ADAPTERS))
    weights = [1 / (rank + 1) for rank in range(len(names))]
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        clients = [
            asyncio.create_task(_send(http, random.Random(index), names, weights))
            for index in range(CLIENTS)
        ]
        await act()
        for client in clients:
            client.cancel()


async def _send(
    http: httpx.AsyncClient, rng: random.Random, names: list[str], weights: list[float]
) -> None:
    await asyncio.sleep(rng.uniform(0, 20))
    while True:
        (model,) = rng.choices(names, weights)
        await http.post(
            "/v1/completions",
            json={
                "model": model,
                "prompt": "hello " * rng.randint(5, 60),
                "max_tokens": rng.randint(40, 220),
                "ignore_eos": True,
                "seed": rng.randint(0, 2**31),
            },
        )
        await asyncio.sleep(rng.uniform(0, 1.5))


async def _demo_pictures(browser: Browser, url: str) -> None:
    await _try_out_weaker_sql(url)
    await _send_prompts(url)
    for theme in THEMES:
        page = await _open(browser, url, theme, "compare")
        await _compare(page)
        await _shoot(page, "compare", theme)
        await _go(page, "chat")
        await _chat_with_two(page)
        await _shoot(page, "chat", theme)
        await _go(page, "adapters")
        await page.get_by_role("button", name="sql", exact=True).click()
        await expect(page.get_by_text(f"{NUM_PAIRS} pairs compared")).to_be_visible()
        await _shoot(page, "adapters", theme)
        await _go(page, "jobs")
        await page.locator(".job-link").nth(1).click()
        await page.locator(".timeline li").first.wait_for()
        await _shoot(page, "jobs", theme)


async def _try_out_weaker_sql(url: str) -> None:
    """Upload a weaker version of `sql`, make it the shadow of `sql`, and pin `extract`.

    The version has half the strength. A shadow is a version that gets copies of requests to the
    current version.
    """
    config = json.loads((DEMO_SQL / "adapter_config.json").read_text())
    weaker = json.dumps({**config, "lora_alpha": config["lora_alpha"] / 2})
    query = {"name": "sql", "config": weaker, "candidate": "true"}
    weights = (DEMO_SQL / "adapter_model.safetensors").read_bytes()
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        for reply in (
            await http.post("/v1/adapters", params=query, content=weights),
            await http.put("/v1/adapters/sql/candidate", json={"mode": "shadow", "percent": 100}),
            await http.put("/v1/adapters/extract/pin", json={"min_replicas": 1}),
        ):
            reply.raise_for_status()


async def _send_prompts(url: str) -> None:
    """Give the adapters some usage, and leave one job running."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        for index in range(len(PROMPTS) * NUM_PAIRS):
            model = list(PROMPTS)[index % len(PROMPTS)]
            await http.post("/v1/chat/completions", json=_chat(model, max_tokens=48))
        await http.post(
            "/v1/chat/completions",
            json={**_chat("pirate", max_tokens=6000), "background": True, "ignore_eos": True},
        )


def _chat(model: str, *, max_tokens: int) -> dict[str, object]:
    messages = [{"role": "user", "content": PROMPTS[model]}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens}


async def _compare(page: Page) -> None:
    await page.get_by_label("Prompt", exact=True).fill(PROMPTS["extract"])
    await page.get_by_label("Max tokens").fill("64")
    await page.get_by_role("button", name="Add a model").click()
    for index, model in enumerate(("extract", "pirate", "sentiment")):
        await page.get_by_role("combobox").nth(index).fill(model)
    await page.get_by_label("Token probabilities").check()
    await page.get_by_role("button", name="Run").click()
    await expect(page.locator(".compare-column .badge")).to_have_text(
        [re.compile("Done")] * 3, timeout=TIMEOUT_MS
    )


async def _chat_with_two(page: Page) -> None:
    """Ask two models side by side, twice."""
    await page.get_by_label("Model", exact=True).fill("pirate")
    await page.get_by_role("button", name="Compare with another model").click()
    await page.get_by_label("Model 2", exact=True).fill("sentiment")
    await page.get_by_text("System prompt, parameters and tools").click()
    await page.get_by_label("Max tokens").fill("64")
    await page.get_by_label("Temperature").fill("0")
    await page.get_by_text("System prompt, parameters and tools").click()
    for prompt in (PROMPTS["pirate"], PROMPTS["sentiment"]):
        await page.get_by_label("Message", exact=True).fill(prompt)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Stop")).to_be_enabled()
        await expect(page.get_by_role("button", name="Stop")).to_be_disabled(timeout=TIMEOUT_MS)


async def _go(page: Page, name: str) -> None:
    await page.get_by_role("link", name=name.capitalize(), exact=True).click()
    await page.wait_for_selector(".chat-form, .table tbody tr, .adapter, .job")


@asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise SystemExit("the pictures need Chromium: run `make browser`")
    async with async_playwright() as playwright:
        yield await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )


async def _open(browser: Browser, url: str, theme: str, name: str, *, width: int = 1280) -> Page:
    size = {"width": width, "height": 800}
    scheme = "dark" if theme == "dark" else "light"
    page = await browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(TIMEOUT_MS)
    await page.goto(f"{url}/#/{name}")
    return page


async def _shoot(page: Page, name: str, theme: str) -> None:
    await page.mouse.move(0, 0)
    await page.screenshot(path=IMAGES / f"console-{name}-{theme}.png", animations="disabled")


@contextmanager
def _server(*words: str) -> Iterator[str]:
    """Run `lorikeet up` with data that is deleted at the end, and yield its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as data:
        argv = lorikeet_argv("up", *words, "--port", str(port), "--data-dir", data)
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
            try:
                _wait_until_ready(url, process)
                yield url
            finally:
                process.terminate()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _is_ready(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the server at {url} did not become ready")
        time.sleep(POLL_S)


def _is_ready(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/v1/pool", timeout=10).json()["has_worker"])
    except (httpx.TransportError, KeyError):
        return False


if __name__ == "__main__":
    asyncio.run(write_pictures())
