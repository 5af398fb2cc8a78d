"""The Compare page: two models side by side, token probabilities, code, and reopened tabs."""

import json
import re
import sys
from typing import Any

import pytest
from console_browser import ConsolePage, OpenPage
from console_pool import get_job, output_of
from playwright.async_api import Page, Request, Route, expect
from servers import Server, wait_for

from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import chat_text, prompt_ids

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

HOSTILE = "<img src=x onerror=document.title=1>"
PROMPT = 'It\'s "quoted": $HOME `pwd`\n\\n <b>bold</b>'
SEED = 7
LONG = 200
"""Tokens of an answer that takes four seconds."""
FILL_STORAGE = """
(numFree) => {
    sessionStorage.setItem("spare", "x".repeat(numFree));
    let number = 0;
    for (let size = 4_000_000; size >= 1; size = Math.floor(size / 2)) {
        try {
            for (;;) {
                sessionStorage.setItem(`filler-${number}`, "x".repeat(size));
                number += 1;
            }
        } catch {}
    }
    sessionStorage.removeItem("spare");
}
"""
"""Fill the tab's storage but for some characters."""


async def fill_in(page: Page, *models: str, max_tokens: int, prompt: str = PROMPT) -> None:
    await page.get_by_label("Prompt", exact=True).fill(prompt)
    await page.get_by_label("Max tokens").fill(str(max_tokens))
    await page.get_by_label("Seed").fill(str(SEED))
    fields = page.get_by_role("combobox")
    while await fields.count() < len(models):
        await page.get_by_role("button", name="Add a model").click()
    while await fields.count() > len(models):
        await page.get_by_role("button", name="Remove model 1").click()
    for index, model in enumerate(models):
        await fields.nth(index).fill(model)


async def ended(page: Page, *expected: str) -> None:
    """Wait until the columns' runs have ended in the expected states."""
    await expect(page.locator(".compare-column .badge")).to_have_text(expected)


async def answers(page: Page) -> list[str]:
    return await page.locator(".compare-column > .column-answer > .answer-text").all_text_contents()


async def states(page: Page) -> list[dict[str, Any]]:
    """Return what the page keeps about its runs."""
    kept = await page.evaluate("() => sessionStorage.getItem('lorikeet-compare-run')")
    found: list[dict[str, Any]] = json.loads(kept)
    return found


def assert_whole(text: str, job: dict[str, Any], prompt: str = PROMPT) -> None:
    """Fail unless `text` is the whole answer of the job, without gap or repetition."""
    assert text == job["choices"][0]["message"]["content"]
    verdict = check(
        text,
        version=AdapterVersion(job["version"]),
        prompt=prompt_ids(chat_text([{"role": "user", "content": prompt}])),
        seed=SEED,
    )
    assert verdict.violation is None


async def ignore_ends(page: Page) -> None:
    """Let answers have all their tokens; otherwise, one in 256 simulated tokens ends an answer."""

    async def ignore_end(route: Route) -> None:
        await route.continue_(post_data={**route.request.post_data_json, "ignore_eos": True})

    await page.route("**/v1/chat/completions", ignore_end)


async def stream_long(console: ConsolePage, *models: str) -> list[str]:
    """Run until all answers stream, and return what they have. They end with `LONG` tokens."""
    page = console.page
    await ignore_ends(page)
    await fill_in(page, *models, max_tokens=LONG)
    await page.get_by_role("button", name="Run").click()
    texts = page.locator(".compare-column > .column-answer > .answer-text")
    for index in range(len(models)):
        await expect(texts.nth(index)).to_have_text(re.compile(r"^[0-9a-f]{40,}$"))
    badges = page.locator(".compare-column .badge")
    await expect(badges).to_have_text(["Streaming"] * len(models))
    return await answers(page)


async def test_two_adapters_are_compared(console: ConsolePage, server: Server) -> None:
    page = await console.open("compare")
    await fill_in(page, "pirate", "sql", max_tokens=20)
    await page.get_by_role("button", name="Run").click()
    await ended(page, "Done", "Done")
    texts, runs = await answers(page), await states(page)
    assert texts[0] != texts[1]
    for index, (text, run) in enumerate(zip(texts, runs, strict=True)):
        job = get_job(server, run["job"])
        assert_whole(text, job)
        facts = page.locator(".compare-column").nth(index).locator(".facts")
        num_tokens = job["usage"]["completion_tokens"]
        for fact in (job["version"], job["choices"][0]["finish_reason"], f"{num_tokens} out"):
            await expect(facts).to_contain_text(fact)
        await expect(facts).to_contain_text(re.compile(r"First token\d+(\.\d)? m?s"))
        rate = num_tokens / (job["ended_ms"] - job["started_ms"]) * 1000
        await expect(facts).to_contain_text(f"Tokens/s{rate:.1f}")
    await console.check_accessibility()


@pytest.mark.parametrize(
    "is_reopened",
    [pytest.param(False, id="reloaded", marks=pytest.mark.long), pytest.param(True, id="reopened")],
)
async def test_the_streams_of_a_tab_continue_exactly(
    open_page: OpenPage, server: Server, is_reopened: bool
) -> None:
    console = await open_page(server.url)
    page = await console.open("compare")
    before = await stream_long(console, "pirate", "support")
    resumed: list[Request] = []

    async def note(request: Request) -> None:
        if request.url.endswith("/stream"):
            resumed.append(request)

    if is_reopened:
        await page.close()
        page = await page.context.new_page()
        console = ConsolePage(page, server.url)
        console.watch()
    page.on("request", note)
    await (console.open("compare") if is_reopened else page.reload())
    await ended(page, "Done", "Done")
    for text, start, run in zip(await answers(page), before, await states(page), strict=True):
        assert text.startswith(start)
        assert len(text) > len(start)
        assert_whole(text, get_job(server, run["job"]))
    ids = [(await request.all_headers()).get("last-event-id") for request in resumed]
    assert len(ids) == 2
    assert all(ids)
    console.check()


async def test_a_killed_front_end_leaves_no_gap(console: ConsolePage, server: Server) -> None:
    console.expect_log("net::ERR_")
    page = await console.open("compare")
    (before,) = await stream_long(console, "sql")
    server.children("api")[0].kill()
    await ended(page, "Done")
    (text,), (run,) = await answers(page), await states(page)
    assert text.startswith(before)
    assert_whole(text, get_job(server, run["job"]))


async def test_a_whole_answer_is_done_even_if_its_facts_cannot_be_read(
    console: ConsolePage, server: Server
) -> None:
    console.expect_log("status of 40")
    page = await console.open("compare")
    facts_of_jobs = re.compile("/v1/jobs/[^/]+$")
    await page.route(facts_of_jobs, lambda route: route.fulfill(status=404))
    await fill_in(page, "sql", max_tokens=5)
    await page.get_by_role("button", name="Run").click()
    await ended(page, "Done")
    (text,), (run,) = await answers(page), await states(page)
    assert_whole(text, get_job(server, run["job"]))


async def test_stop_cancels_the_only_run_although_streams_hold_all_connections(
    console: ConsolePage, server: Server
) -> None:
    for _ in range(2):  # Chromium opens six connections to a server
        tab = await console.page.context.new_page()
        await tab.goto(f"{console.url}/#/pool")
        await expect(tab.get_by_role("grid")).to_be_visible()
    page = await console.open("compare")
    await stream_long(console, "pirate", "sql", "support", "sentiment")
    keys = [run["key"] for run in await states(page)]
    await page.get_by_label("Prompt", exact=True).press("Control+Enter")  # starts no second run
    await page.get_by_role("button", name="Stop").click()
    await ended(page, *["Stopped"] * 4)
    runs = await states(page)
    assert [run["key"] for run in runs] == keys
    assert {get_job(server, run["job"])["state"] for run in runs} == {"cancelled"}


async def test_another_tab_leaves_the_runs_of_the_first_alone(console: ConsolePage) -> None:
    page = await console.open("compare")
    await stream_long(console, "sql")
    other = await page.context.new_page()
    await other.goto(f"{console.url}/#/compare")
    await expect(other.get_by_role("combobox").first).not_to_have_value("")
    await expect(other.get_by_label("Prompt", exact=True)).to_have_value("")
    await other.get_by_role("button", name="Clear").click()
    await ended(page, "Done")


async def test_versions_to_compare_start_without_the_answers_of_other_models(
    console: ConsolePage, server: Server
) -> None:
    page = await console.open("compare")
    await stream_long(console, "pirate", "support")
    await page.wait_for_function("""() =>
        JSON.parse(sessionStorage.getItem("lorikeet-compare-run")).every((run) => run.job)""")
    jobs = [run["job"] for run in await states(page)]
    await page.get_by_role("link", name="Adapters").click()
    await page.get_by_role("button", name="sql", exact=True).click()
    await page.get_by_role("button", name="Compare versions").click()
    await expect(page.get_by_role("combobox")).to_have_value(re.compile("^sql@"))
    await ended(page, "Ready")

    def are_cancelled() -> bool:
        return {get_job(server, job)["state"] for job in jobs} == {"cancelled"}

    wait_for(are_cancelled, server.log_text, server.process)


KEPT_WITHOUT_TOKENS = """(isWithoutText) => {
    const [run] = JSON.parse(sessionStorage.getItem("lorikeet-compare-run"));
    return run.tokens.length === 0 && (run.text === "") === isWithoutText;
}"""


@pytest.mark.parametrize(
    ("num_free", "is_asked_again"),
    [
        pytest.param(3_000, False, id="without the tokens", marks=pytest.mark.long),
        pytest.param(1_500, True, id="without the text"),
    ],
)
async def test_a_run_larger_than_the_storage_survives_a_reload(
    console: ConsolePage, server: Server, num_free: int, is_asked_again: bool
) -> None:
    page = await console.open("compare")
    await expect(page.get_by_role("combobox").first).not_to_have_value("")
    await ignore_ends(page)
    await fill_in(page, "sql", max_tokens=LONG)
    await page.get_by_label("Token probabilities").check()
    await page.evaluate(FILL_STORAGE, num_free)
    await page.get_by_role("button", name="Run").click()
    await ended(page, "Done")
    await page.wait_for_function(KEPT_WITHOUT_TOKENS, arg=is_asked_again)
    (run,) = await states(page)
    await page.get_by_label("Token probabilities").uncheck()
    await page.reload()
    await ended(page, "Done")
    (text,) = await answers(page)
    assert_whole(text, get_job(server, run["job"]))


async def test_the_keyboard_alone_runs_a_comparison_and_reads_probabilities(
    console: ConsolePage,
) -> None:
    page = await console.open("compare")
    prompt = page.get_by_label("Prompt", exact=True)
    await expect(page.get_by_role("combobox").first).not_to_have_value("")
    await press_until_focused(page, "Tab", prompt)
    await page.keyboard.type("hello")
    await press_until_focused(page, "Tab", page.get_by_label("Max tokens"))
    await page.keyboard.press("Control+A")
    await page.keyboard.type("6")
    await press_until_focused(page, "Tab", page.get_by_label("Token probabilities"))
    await page.keyboard.press("Space")
    await press_until_focused(page, "Shift+Tab", prompt)
    await page.keyboard.press("Control+Enter")
    await ended(page, "Done", "Done")
    tokens = page.get_by_role("listbox", name="Tokens of answer 1")
    await press_until_focused(page, "Tab", tokens)
    await page.keyboard.press("ArrowRight")
    second = (await tokens.get_by_role("option").all_text_contents())[1]
    await expect(page.locator(".token-card").first).to_have_text(f"{second}100.0%")
    await expect(tokens.get_by_role("option", selected=True)).to_have_text(second)
    await console.check_accessibility()
    await page.keyboard.press("Escape")
    await expect(page.locator(".token-card").first).to_be_hidden()


async def press_until_focused(page: Page, key: str, target: Any) -> None:
    for _ in range(40):
        if await target.evaluate("node => node === document.activeElement"):
            return
        await page.keyboard.press(key)
    pytest.fail(f"{key} never reaches {target}")


async def test_names_and_errors_stay_text(console: ConsolePage) -> None:
    console.expect_log("status of 404")
    page = await console.open("compare")
    await fill_in(page, HOSTILE, max_tokens=5, prompt=HOSTILE)
    await page.get_by_role("button", name="Run").click()
    await ended(page, "Failed")
    await expect(page.get_by_role("alert")).to_contain_text(HOSTILE)
    await page.get_by_role("button", name="Request 1 as code").click()
    await expect(page.get_by_role("region", name="curl")).to_contain_text("<img src=x")
    assert await page.locator("main img, dialog img").count() == 0
    await expect(page).to_have_title("Compare · Lorikeet")


async def test_the_code_sends_the_same_request_and_never_contains_the_key(
    open_page: OpenPage, server: Server
) -> None:
    console = await open_page(server.url, width=400, theme="dark")
    page = await console.open("compare")
    key = "secret-key-of-this-tab"
    await page.evaluate("key => sessionStorage.setItem('lorikeet-api-key', key)", key)
    await fill_in(page, "sql", max_tokens=12)
    await page.get_by_role("button", name="Run").click()
    await ended(page, "Done")
    await console.check_width()
    await page.get_by_role("button", name="Request 1 as code").click()
    await console.check_accessibility()
    curl = await page.get_by_role("region", name="curl").inner_text()
    python = await page.get_by_role("region", name="Python").inner_text()
    assert key not in await page.content()
    assert ('"max_tokens": 12' in curl, "max_tokens=12" in python) == (True, True)
    streamed = await output_of("sh", "-c", curl)
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line[:7] == "data: {"]
    parts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    for text in ("".join(parts), await output_of(sys.executable, "-c", python)):
        verdict = check(
            text,
            version=AdapterVersion(chunks[0]["weight_version"]),
            prompt=prompt_ids(chat_text([{"role": "user", "content": PROMPT}])),
            seed=SEED,
        )
        assert verdict.violation is None
