"""The Adapters page on a real engine with a tiny model: check, load, send, roll back, unload."""

import json
import math
import re
from pathlib import Path

import httpx
import pytest
from console_adapters import (
    CONFIG,
    WEIGHTS,
    adapter,
    digest,
    expect_compared,
    load_in_place,
    open_row,
    rows,
)
from console_browser import ConsolePage, OpenPage
from console_pool import get_job, start_jobs
from playwright.async_api import FilePayload, Locator, Page, expect
from servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

HOSTILE = "<img src=x onerror=document.title=1>"


def names(server: Server) -> list[str]:
    """Return the names of all models."""
    reply = httpx.get(f"{server.url}/v1/models", timeout=60).json()
    return [model["id"] for model in reply["data"]]


async def open_dialog(page: Page, name: str) -> Locator:
    await page.get_by_role("button", name="Load an adapter").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name", exact=True).fill(name)
    return dialog


async def load(page: Page, name: str, source: Path) -> None:
    dialog = await open_dialog(page, name)
    await dialog.get_by_label("Source", exact=True).fill(str(source))
    await dialog.get_by_role("button", name="Load").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)


def files_of(folder: Path, *names: str) -> list[FilePayload]:
    return [
        {"name": name, "mimeType": "", "buffer": (folder / name).read_bytes()} for name in names
    ]


async def test_an_adapter_is_loaded_replaced_and_rolled_back(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    page = console.page
    await load(page, "team/sql", root / "first")
    first = adapter(tiny, "team/sql")["version"]
    shown = rows(page, "team/sql")
    main = shown.locator(".main-row")
    await expect(main).to_contain_text(digest(first))
    await expect(main).to_contain_text("LoRA")
    await expect(shown.get_by_role("button", name="Roll back")).to_be_disabled()

    await shown.get_by_role("button", name="Replace").click()
    await (
        page.get_by_role("dialog", name="Replace team/sql")
        .get_by_label("Source", exact=True)
        .fill(str(root / "second"))
    )
    await page.get_by_role("dialog").get_by_role("button", name="Replace").click()
    await expect(main).not_to_contain_text(digest(first))
    second = adapter(tiny, "team/sql")["version"]
    await expect(main).to_contain_text(digest(second))
    versions = shown.locator(".versions tbody tr")
    await expect(versions).to_contain_text([f"{second}current", f"{first}previous 1"])

    await shown.get_by_role("button", name=f"Roll back to {digest(first)}").click()
    await expect(shown).to_contain_text(f"New requests for team/sql use {first}.")
    await expect(versions).to_contain_text([f"{first}current", f"{second}previous 1"])
    assert adapter(tiny, "team/sql")["version"] == first
    await console.check_accessibility()

    await expect_compared(page, shown, first, second)


async def test_any_previous_version_is_made_current_after_a_question(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    page = console.page
    loaded = [load_in_place(tiny, "flip", root / name) for name in ("first", "second", "third")]
    first, second, third = loaded
    shown = await open_row(page, "flip")
    versions = shown.locator(".versions tbody tr")
    await expect(versions).to_contain_text(
        [f"{third}current", f"{second}previous 1", f"{first}previous 2"]
    )
    await expect(versions.get_by_role("button")).to_have_count(2)
    button = shown.get_by_role("button", name=f"Make current: {first}")
    await button.click()
    question = page.get_by_role("dialog", name=f"Make {first} current?")
    await console.check_accessibility()
    await question.get_by_role("button", name="Cancel").click()
    assert adapter(tiny, "flip")["version"] == third

    await button.click()
    await question.get_by_role("button", name="Make current").click()
    await expect(shown).to_contain_text(f"New requests for flip use {first}.")
    await expect(versions).to_contain_text(
        [f"{first}current", f"{third}previous 1", f"{second}previous 2"]
    )
    await expect(button).to_have_count(0)
    await expect(shown.get_by_role("button", name="flip", exact=True)).to_be_focused()
    assert adapter(tiny, "flip")["version"] == first
    await console.check_accessibility()


async def test_a_check_shows_what_fits_or_why_not_and_loads_nothing(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    console.expect_log("status of 40[034]")
    page = console.page
    dialog = await open_dialog(page, "checked")
    source, button = (
        dialog.get_by_label("Source", exact=True),
        dialog.get_by_role("button", name="Check"),
    )
    await source.fill(str(root / "first"))
    await button.click()
    await expect(dialog).to_contain_text("It can be loaded.")
    await expect(dialog).to_contain_text(re.compile("Ranks4 .4 modules.*8 match, 0 don't"))
    await console.check_accessibility()
    for path, reason in (
        (root / "bad", "LOHA"),
        (root / "none", "isn't a folder on the worker's machine"),
        (root.parent, "root"),
        (HOSTILE, re.escape(HOSTILE)),
    ):
        await source.fill(str(path))
        await button.click()
        await expect(dialog.locator(".notice-error")).to_contain_text(re.compile(reason))
    await dialog.get_by_role("button", name="Load").click()
    await expect(dialog.get_by_role("alert")).to_contain_text(HOSTILE)
    assert await page.locator("main img, dialog img").count() == 0
    await expect(page).to_have_title("Adapters · Lorikeet")
    await page.keyboard.press("Escape")
    assert "checked" not in names(tiny)


async def test_chosen_files_are_sent_and_have_the_folders_version(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    console.expect_log("status of 400")
    page = console.page
    dialog = await open_dialog(page, "sent")
    await dialog.get_by_label("Files of this computer").check()
    picker = dialog.locator("input[type=file]")
    await picker.set_input_files(files_of(root / "third", CONFIG))
    await expect(dialog.get_by_role("alert")).to_contain_text(f"There is no {WEIGHTS} among")
    broken = files_of(root / "third", CONFIG, WEIGHTS)
    broken[1]["buffer"] = broken[1]["buffer"][:-100]
    await picker.set_input_files(broken)
    await expect(dialog).to_contain_text("q_proj, v_proj")
    await dialog.get_by_role("button", name="Load").click()
    await expect(dialog.get_by_role("alert")).to_contain_text(WEIGHTS)
    await picker.set_input_files(files_of(root / "third", CONFIG, WEIGHTS))
    await dialog.get_by_role("button", name="Load").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    sent = adapter(tiny, "sent")
    assert sent["source"].startswith("upload:")
    await load(page, "from-folder", root / "third")
    assert digest(adapter(tiny, "from-folder")["version"]) == digest(sent["version"])


async def test_dropped_files_open_the_dialog_and_a_taken_name_is_refused(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    page = console.page
    await expect(rows(page, "start")).to_be_visible()
    payload = [
        (file["name"], list(file["buffer"])) for file in files_of(root / "first", CONFIG, WEIGHTS)
    ]
    transfer = await page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) {
                transfer.items.add(new File([new Uint8Array(bytes)], name));
            }
            return transfer;
        }""",
        payload,
    )
    await page.locator(".adapters-panel").dispatch_event("drop", {"dataTransfer": transfer})
    dialog = page.get_by_role("dialog", name="Load an adapter")
    await expect(dialog).to_contain_text("q_proj, v_proj")
    await dialog.get_by_label("Name", exact=True).fill("start")
    before = adapter(tiny, "start")["version"]
    await dialog.get_by_role("button", name="Load").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("The name start is taken")
    assert adapter(tiny, "start")["version"] == before
    await dialog.get_by_label("Name", exact=True).fill("dropped")
    await dialog.get_by_role("button", name="Load").click()
    await expect(rows(page, "dropped").locator(".versions")).to_contain_text("upload:")


async def test_the_keyboard_alone_unloads_an_adapter_after_a_question(
    console: ConsolePage, tiny: Server, root: Path
) -> None:
    page = console.page
    await load(page, "old", root / "first")
    button = rows(page, "old").get_by_role("button", name="Unload")
    await button.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog", name="Unload old?")).to_be_visible()
    await page.keyboard.press("Enter")  # "Keep it" has the focus
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(button).to_be_focused()
    assert adapter(tiny, "old")["state"] == "ready"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(rows(page, "old")).to_have_count(0)
    assert "old" not in names(tiny)
    await page.get_by_label("Filter by name").fill("start")
    await expect(page.locator(".adapter")).to_have_count(1)


async def test_usage_is_counted_and_the_page_fits_a_telephone(
    open_page: OpenPage, tiny: Server
) -> None:
    start_jobs(tiny, "start", 1, num_tokens=3)
    console = await open_page(tiny.url, width=400, theme="dark")
    page = await console.open("adapters")
    await expect(rows(page, "start").locator("[data-label='Last used']")).to_have_text(
        re.compile("ago$")
    )
    used = adapter(tiny, "start")
    await rows(page, "start").get_by_role("button", name="start").click()
    main = rows(page, "start").locator(".main-row")
    await expect(main.locator("[data-label=Requests]")).to_have_text(str(used["requests"]))
    await expect(main.locator("[data-label=Tokens]")).to_have_text(str(used["tokens"]))
    await console.check_width()
    await console.check_accessibility()


async def test_tokens_are_tinted_by_the_probabilities_of_the_answer(
    console: ConsolePage, tiny: Server
) -> None:
    page = await console.open("compare")
    await page.get_by_label("Prompt", exact=True).fill("hello")
    await page.get_by_label("Max tokens").fill("8")
    await page.get_by_label("Token probabilities").check()
    fields = page.get_by_role("combobox")
    await fields.nth(0).fill("start")
    await fields.nth(1).fill("tiny")
    await page.get_by_role("button", name="Run").click()
    await expect(page.locator(".compare-column .badge")).to_have_text(["Done", "Done"])
    run = json.loads(await page.evaluate("() => sessionStorage.getItem('lorikeet-compare-run')"))[0]
    expected = get_job(tiny, run["job"])["choices"][0]["logprobs"]["content"]
    tokens = page.get_by_role("listbox", name="Tokens of answer 1").get_by_role("option")
    doubts = await tokens.evaluate_all(
        "nodes => nodes.map(n => n.style.getPropertyValue('--doubt'))"
    )
    assert [float(d) for d in doubts] == [
        pytest.approx(1 - math.exp(token["logprob"]), abs=0.001) for token in expected
    ]
    await tokens.nth(0).hover()
    shares = [f"{math.exp(t['logprob']):.1%}" for t in expected[0]["top_logprobs"]]
    await expect(page.locator(".token-card").first.locator(".num")).to_have_text(shares)
