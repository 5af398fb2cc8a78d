"""The Chat page: turns, parameters, tools, reasoning, stopping, editing, comparing and sharing."""

import json
import re
from typing import Any

import pytest
from console_browser import ConsolePage, OpenPage
from playwright.async_api import Locator, Page, Route, expect
from servers import Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

ANSWER = re.compile(r"^[0-9a-f]+$")
WEATHER = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


async def open_chat(console: ConsolePage, *, max_tokens: int = 6) -> Page:
    page = await console.open("chat")
    await page.get_by_text("System prompt, parameters and tools").click()
    await page.get_by_label("Max tokens").fill(str(max_tokens))
    await page.get_by_label("Model", exact=True).fill("sql")
    return page


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".chat-answer > .chat-text")


def sent_bodies(page: Page) -> list[dict[str, Any]]:
    """Return the list that holds the bodies of the chat completions that the page requests."""
    bodies: list[dict[str, Any]] = []

    def note(request: Any) -> None:
        if request.url.endswith("/v1/chat/completions"):
            bodies.append(request.post_data_json)

    page.on("request", note)
    return bodies


async def test_each_turn_sends_the_chat_so_far_with_its_settings(console: ConsolePage) -> None:
    page = await open_chat(console)
    bodies = sent_bodies(page)
    await page.get_by_label("System prompt").fill("Be brief.")
    await page.get_by_label("Temperature").fill("0.5")
    await page.get_by_label("Top p").fill("0.9")
    await say(page, "one")
    await expect(answers(page)).to_have_text([ANSWER])
    await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    first = await answers(page).inner_text()
    await say(page, "two")
    await expect(answers(page)).to_have_text([ANSWER, ANSWER])
    assert bodies[1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "two"},
    ]
    assert {name: bodies[1][name] for name in ("model", "temperature", "top_p", "max_tokens")} == {
        "model": "sql",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 6,
    }
    await expect(page.locator(".chat-answer").last).to_contain_text("6 out")
    await console.check_accessibility()


async def test_an_edited_message_and_a_regenerated_answer_drop_what_came_later(
    console: ConsolePage,
) -> None:
    page = await open_chat(console)
    bodies = sent_bodies(page)
    for text in ("one", "two"):
        await say(page, text)
        await expect(answers(page).last).to_have_text(ANSWER)
        await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    await page.get_by_role("button", name="Edit answer 1").click()
    await page.get_by_label("Text", exact=True).fill("my answer")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(".chat-answer").first).to_contain_text("edited")
    await page.get_by_role("button", name="Regenerate answer 2").click()
    await expect(answers(page)).to_have_text(["my answer", ANSWER])
    await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    assert bodies[2]["messages"][1] == {"role": "assistant", "content": "my answer"}
    await page.get_by_role("button", name="Edit message 1").click()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Edit message 1").click()
    await page.get_by_label("Text", exact=True).fill("other")
    await page.get_by_role("button", name="Save").click()
    await expect(answers(page)).to_have_text([ANSWER])
    assert bodies[3]["messages"] == [{"role": "user", "content": "other"}]


async def test_a_stopped_answer_keeps_what_came_and_a_reloaded_page_continues_one(
    console: ConsolePage,
) -> None:
    page = await open_chat(console, max_tokens=5000)
    await say(page, "go on")
    await expect(answers(page)).to_have_text(re.compile("^[0-9a-f]{40,}$"))
    await page.reload()
    await expect(answers(page)).to_have_text(re.compile("^[0-9a-f]{200,}$"))
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator(".chat-answer .badge")).to_have_text("Stopped")
    await expect(answers(page)).to_have_text(re.compile("^[0-9a-f]{200,}$"))
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()


async def test_models_are_compared_side_by_side_and_each_continues_its_own_answers(
    console: ConsolePage,
) -> None:
    page = await open_chat(console)
    bodies = sent_bodies(page)
    await page.get_by_role("button", name="Compare with another model").click()
    await page.get_by_label("Model 2", exact=True).fill("pirate")
    await say(page, "one")
    await expect(answers(page)).to_have_text([ANSWER, ANSWER])
    await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    texts = await answers(page).all_inner_texts()
    boxes = [await each.bounding_box() for each in await page.locator(".chat-answer").all()]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] < boxes[1]["x"]
    await say(page, "two")
    await expect(answers(page)).to_have_text([ANSWER] * 4)
    assert {body["model"]: body["messages"][1]["content"] for body in bodies[2:]} == {
        "sql": texts[0],
        "pirate": texts[1],
    }
    await console.check_accessibility()
    await page.get_by_role("button", name="Remove model 1").click()
    await expect(answers(page)).to_have_count(2)
    assert (await answers(page).first.inner_text()) == texts[1]


def streamed(*deltas: dict[str, Any], finish: str) -> str:
    """Return a chat completion's stream with these deltas."""
    parts = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    parts.append({"index": 0, "delta": {}, "finish_reason": finish})
    events = [f"id: {i}-1\ndata: {json.dumps({'choices': [each]})}" for i, each in enumerate(parts)]
    return "\n\n".join([*events, "data: [DONE]", ""]) + "\n"


async def answer_with(page: Page, *streams: str) -> None:
    """Answer chat completions with these streams. The simulated engine uses no tools."""
    remaining = list(streams)

    async def accept(route: Route) -> None:
        await route.fulfill(status=202, json={"id": "0" * 32})

    async def answer(route: Route) -> None:
        await route.fulfill(body=remaining.pop(0), content_type="text/event-stream")

    async def describe(route: Route) -> None:
        await route.fulfill(json={"id": "0" * 32, "state": "done", "usage": None})

    await page.route("**/v1/chat/completions", accept)
    await page.route("**/v1/jobs/*", describe)
    await page.route("**/v1/jobs/*/stream", answer)


async def test_reasoning_and_tool_calls_are_shown_apart_and_results_are_sent(
    console: ConsolePage,
) -> None:
    page = await open_chat(console)
    bodies = sent_bodies(page)
    call = {"id": "call-1", "function": {"name": "weather", "arguments": '{"city": '}}
    rest = {"function": {"name": None, "arguments": '"Osaka"}'}}
    first = streamed(
        {"reasoning": "I need the weather."},
        {"tool_calls": [{"index": 0, **call}]},
        {"tool_calls": [{"index": 0, **rest}]},
        finish="tool_calls",
    )
    await answer_with(page, first, streamed({"content": "Sunny"}, finish="stop"))
    await page.get_by_label("Tools").fill("[")
    await say(page, "How is the weather?")
    await expect(page.get_by_role("alert")).to_contain_text("Tools: not valid JSON")
    await page.get_by_label("Tools").fill(json.dumps(WEATHER))
    await say(page, "How is the weather?")
    answer = page.locator(".chat-answer")
    await expect(answer.locator(".chat-call code")).to_have_text("weather")
    await expect(answer.locator(".chat-call pre")).to_have_text('{\n  "city": "Osaka"\n}')
    await expect(answer.locator("> .chat-text")).to_have_text("")
    await answer.get_by_text("Reasoning").click()
    await expect(answer.locator(".reasoning .chat-text")).to_have_text("I need the weather.")
    await console.check_accessibility()
    await page.get_by_label("Result of weather, call 1").fill("22 degrees")
    await page.get_by_role("button", name="Send results").click()
    await expect(answers(page).last).to_have_text("Sunny")
    assert bodies[0]["tools"] == WEATHER
    (called,) = bodies[1]["messages"][1]["tool_calls"]
    assert (called["id"], called["function"]["arguments"]) == ("call-1", '{"city": "Osaka"}')
    assert bodies[1]["messages"][2] == {
        "role": "tool",
        "tool_call_id": "call-1",
        "content": "22 degrees",
    }
    await page.unroute_all()


async def test_a_shared_link_holds_the_chat_and_sends_it_to_no_server(
    console: ConsolePage, open_page: OpenPage, server: Server
) -> None:
    page = await open_chat(console)
    await say(page, "a secret <b>question</b>")
    await expect(answers(page)).to_have_text(ANSWER)
    await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    text = await answers(page).inner_text()
    await page.get_by_role("button", name="Share").click()
    dialog = page.get_by_role("dialog", name="Share this chat")
    await console.check_accessibility()
    link = await dialog.get_by_label("Link").input_value()
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await dialog.get_by_role("button", name="Copy the link").click()
    await expect(dialog.get_by_role("status")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == link
    other = await open_page(server.url)
    requested: list[str] = []
    other.page.on("request", lambda request: requested.append(request.url + str(request.post_data)))
    await other.page.goto(link)
    await expect(other.page.locator(".chat-said .chat-text")).to_have_text(
        "a secret <b>question</b>"
    )
    await expect(answers(other.page)).to_have_text(text)
    await expect(other.page.get_by_label("Model", exact=True)).to_have_value("sql")
    assert not any("c=" in each or "secret" in each for each in requested)
    assert "c=" not in other.page.url
    await other.page.goto(f"{link[:-20]}")
    await other.page.reload()
    await expect(other.page.get_by_role("alert")).to_contain_text("The link is damaged")


async def test_chats_are_kept_by_the_browser_until_they_are_deleted(console: ConsolePage) -> None:
    page = await open_chat(console)
    await say(page, "first chat")
    await expect(answers(page)).to_have_text(ANSWER)
    await page.get_by_role("button", name="New chat").click()
    await expect(answers(page)).to_have_count(0)
    await say(page, "second chat")
    await expect(answers(page)).to_have_text(ANSWER)
    again = await page.context.new_page()
    await again.goto(f"{console.url}/#/chat")
    chooser = again.get_by_label("Chats of this browser")
    await expect(chooser.locator("option")).to_have_text(["New chat", "second chat", "first chat"])
    await chooser.select_option(label="first chat")
    await expect(again.locator(".chat-said")).to_contain_text("first chat")
    await again.get_by_role("button", name="Delete").click()
    await expect(chooser.locator("option")).to_have_text(["New chat", "second chat"])
    await again.reload()
    await expect(chooser.locator("option")).to_have_text(["New chat", "second chat"])


async def test_the_keyboard_alone_chats_on_a_telephone(open_page: OpenPage, server: Server) -> None:
    console = await open_page(server.url, width=400, theme="dark")
    page = await console.open("chat")
    await expect(page.get_by_label("Model", exact=True)).not_to_have_value("")
    await page.get_by_text("System prompt, parameters and tools").focus()
    await page.keyboard.press("Enter")
    await page.get_by_label("Max tokens").focus()
    await page.keyboard.type("6")
    while not await page.evaluate("document.activeElement.id === 'chat-input'"):
        await page.keyboard.press("Tab")
    await page.keyboard.type("hello")
    await page.keyboard.press("Enter")
    await expect(answers(page)).to_have_text(ANSWER)
    await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    for name in ("Edit answer 1", "Regenerate answer 1"):
        while await page.evaluate("document.activeElement.ariaLabel") != name:
            await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    await expect(answers(page)).to_have_text([ANSWER])
    await console.check_accessibility()
    await console.check_width()
