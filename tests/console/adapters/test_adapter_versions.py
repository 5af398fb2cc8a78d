"""Candidates and pins on the Adapters page, on a real engine with a tiny model."""

import re
from pathlib import Path

import pytest
from console_adapters import adapter, digest, expect_compared, load_in_place, open_row
from console_browser import ConsolePage, OpenPage
from console_pool import start_jobs
from playwright.async_api import Locator, Page, Route, expect
from servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

AGREEMENT = {
    "mode": "shadow",
    "percent": 100,
    "differing": [],
    "agreement": {"pairs": 3, "equal": 3, "failed": 0, "similarity": 1},
}
"""A body of GET /v1/adapters/{name}/candidate."""
WATCH_AGREEMENT = """() => {
    const isShown = () => document.querySelector(".adapters").innerText.includes("pairs compared");
    const watch = new MutationObserver(() => (window.wasShown ||= isShown()));
    watch.observe(document.body, { subtree: true, childList: true, attributes: true });
}"""
"""Script that notes in `wasShown` if the page shows an agreement from now on."""


async def until_held(page: Page, held: list[Route]) -> None:
    """Wait until the page has sent a request whose answer is held back."""
    while not held:
        await page.wait_for_timeout(20)


async def try_out(page: Page, row: Locator, source: Path, mode: str, percent: int) -> None:
    """Fill in the dialog that makes a source the candidate."""
    await row.get_by_role("button", name="Try out").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Source", exact=True).fill(str(source))
    await dialog.get_by_label(mode).check()
    await dialog.get_by_label("Per cent of the requests").fill(str(percent))
    await dialog.get_by_role("button", name="Try out").click()


async def test_a_canary_is_tried_out_widened_and_promoted(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    page = console.page
    first = load_in_place(tiny, "team/tried", root / "first")
    row = await open_row(page, "team/tried")
    await try_out(page, row, root / "second", "Canary", 25)
    await expect(page.get_by_role("dialog")).to_have_count(0)
    second = adapter(tiny, "team/tried")["candidate"]["version"]
    await expect(row).to_contain_text(f"{second} is the candidate of team/tried: canary 25%.")
    await expect(row.locator(".main-row")).to_contain_text("canary 25%")
    versions = row.locator(".versions tbody tr")
    await expect(versions).to_contain_text([f"{first}current", f"{second}canary 25%"])
    await console.check_accessibility()

    await row.get_by_role("button", name="Change the share").click()
    dialog = page.get_by_role("dialog", name=f"Share of {second}")
    await console.check_accessibility()
    share = dialog.get_by_label("Per cent of the requests")
    await expect(share).to_be_focused()
    await share.fill("62.5")
    await dialog.get_by_role("button", name="Change").click()
    await expect(row.locator(".main-row")).to_contain_text("canary 62.5%")
    assert adapter(tiny, "team/tried")["candidate"]["percent"] == 62.5

    await row.get_by_role("button", name=f"Promote: {second}").click()
    question = page.get_by_role("dialog", name=f"Promote {second}?")
    await question.get_by_role("button", name="Promote").click()
    await expect(versions).to_contain_text([f"{second}current", f"{first}previous 1"])
    await expect(row).to_contain_text(f"New requests for team/tried use {second}.")
    await expect(row.get_by_role("button", name="team/tried", exact=True)).to_be_focused()
    assert adapter(tiny, "team/tried")["version"] == second
    await expect(row.locator(".main-row")).not_to_contain_text("canary")


async def test_a_shadow_shows_how_its_answers_compare_until_it_is_dropped(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    console.expect_log("status of 409.*shadowed/candidate")  # of a request that the drop overtook
    page = console.page
    current = load_in_place(tiny, "shadowed", root / "first")
    row = await open_row(page, "shadowed")
    await try_out(page, row, root / "third", "Shadow", 100)
    await expect(row.locator(".main-row")).to_contain_text("shadow 100%")
    await expect(row).to_contain_text("0 pairs compared")
    jobs = start_jobs(tiny, "shadowed", 3, num_tokens=8)
    await expect(row).to_contain_text(re.compile("3 pairs compared: . equal, 0 failed, mean"))
    differing = row.get_by_text("Newest pairs that differ")
    await differing.click()
    pair = row.locator(".pairs li").first
    async with page.expect_response(re.compile("shadowed/candidate")):
        await expect(pair).to_be_visible()
    await expect(pair).to_contain_text("Candidate")
    await expect(pair).to_be_visible()  # the page's next answer leaves it open
    await expect(differing).to_be_focused()
    assert re.sub("#/jobs/", "", await pair.locator("a").get_attribute("href") or "") in jobs
    await console.check_accessibility()

    candidate = adapter(tiny, "shadowed")["candidate"]["version"]
    held: list[Route] = []
    await page.route(re.compile("shadowed/candidate$"), lambda route: held.append(route))
    await until_held(page, held)
    await row.get_by_role("button", name=f"Drop: {candidate}").click()
    question = page.get_by_role("dialog", name=f"Drop {candidate}?")
    await question.get_by_role("button", name="Drop").click()
    await expect(row).to_contain_text(f"{candidate} is no longer tried out. {current} answers all")
    await expect(row).not_to_contain_text("pairs compared", use_inner_text=True)
    await page.evaluate(WATCH_AGREEMENT)
    await held[0].fulfill(json=AGREEMENT | {"version": candidate})
    async with page.expect_response(re.compile("v1/adapters$")):
        pass
    assert not await page.evaluate("() => window.wasShown")
    assert adapter(tiny, "shadowed")["candidate"] is None


async def test_a_previous_version_is_tried_out(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    page = console.page
    first, second = [load_in_place(tiny, "back", root / each) for each in ("first", "second")]
    row = await open_row(page, "back")
    await row.get_by_role("button", name="Try out").click()
    dialog = page.get_by_role("dialog", name="Try out a version of back")
    await dialog.get_by_label("Version", exact=True).select_option(first)
    await expect(dialog.get_by_label("Source", exact=True)).to_be_hidden()
    await dialog.get_by_role("button", name="Try out").click()
    await expect(row.locator(".versions tbody tr")).to_contain_text(
        [f"{second}current", f"{first}canary 10%"]
    )
    await expect_compared(page, row, second, first)


async def test_a_candidate_that_does_not_load_is_refused_in_the_dialog(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    console.expect_log("status of 400")
    page = console.page
    load_in_place(tiny, "strict", root / "first")
    row = await open_row(page, "strict")
    await try_out(page, row, root / "bad", "Canary", 10)
    await expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("LOHA")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert adapter(tiny, "strict")["candidate"] is None


async def test_a_dialog_that_is_closed_while_it_works_still_says_how_it_ended(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    page = console.page
    load_in_place(tiny, "early", root / "first")
    row = await open_row(page, "early")
    held: list[Route] = []
    await page.route(re.compile("early/candidate$"), lambda route: held.append(route))
    await try_out(page, row, root / "second", "Canary", 10)
    await until_held(page, held)
    await page.get_by_role("dialog").get_by_role("button", name="Close").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await held[0].continue_()
    await expect(row).to_contain_text("is the candidate of early: canary 10%.")


async def test_a_quarantined_candidate_is_shown_as_such_and_can_only_be_dropped(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    """Only the state in the server's answers is changed, since nothing here kills a worker."""
    page = console.page
    load_in_place(tiny, "broken", root / "first")

    async def quarantine(route: Route) -> None:
        reply = await route.fetch()
        body = await reply.json()
        for each in body["data"]:
            if each["candidate"]:
                each["candidate"]["state"] = "quarantined"
        await route.fulfill(response=reply, json=body)

    await page.route(re.compile("v1/adapters$"), quarantine)
    row = await open_row(page, "broken")
    await try_out(page, row, root / "second", "Canary", 10)
    await expect(row.locator(".main-row")).to_contain_text("canary quarantined")
    await expect(row.get_by_role("button", name="Change the share")).to_be_disabled()
    buttons = row.locator(".versions tbody tr").nth(1).get_by_role("button")
    await expect(buttons).to_have_text(["Drop"])
    await page.unroute_all()


async def test_an_adapter_is_pinned_and_unpinned(
    open_page: OpenPage, tiny: Server, root: Path
) -> None:
    version = load_in_place(tiny, "kept", root / "first")
    console = await open_page(tiny.url, width=400, theme="dark")
    page = await console.open("adapters")
    row = await open_row(page, "kept")
    workers = row.locator(".main-row [data-label=Workers]")
    await expect(workers).to_have_text("none")
    await row.get_by_role("button", name="Pin").click()
    dialog = page.get_by_role("dialog", name="Pin kept")
    await console.check_accessibility()
    await dialog.get_by_label("Workers").press("Enter")
    await expect(row).to_contain_text("kept is pinned. At least 1 worker will keep it in memory")
    await expect(row.locator(".main-row")).to_contain_text("pinned: on 1 of 1")
    assert adapter(tiny, "kept")["min_replicas"] == 1
    await expect(workers).not_to_have_text("none")
    await expect(row.locator(".main-row")).to_contain_text(digest(version))
    await console.check_width()
    await row.get_by_role("button", name="Pin").click()
    await dialog.get_by_role("button", name="Unpin").click()
    await expect(row).to_contain_text("kept is no longer pinned.")
    assert adapter(tiny, "kept")["min_replicas"] == 0
