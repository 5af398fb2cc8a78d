"""Templates of adapters are rendered as by transformers, and none takes more than its limits."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reasoning_templates import DEEPSEEK_R1, QWEN3
from tiny import CHAT_TEMPLATE, tiny_tokenizer
from tool_templates import DEEPSEEK_V3, HERMES, LLAMA3

from shared.protocol.jobs import PromptEnd
from shared.sandbox import TOO_COSTLY
from worker.text.templates.chat_template import TEMPLATE_ERRORS, render_chat
from worker.text.templates.process import MAX_TEXT_CHARS
from worker.text.templates.sandbox import AdapterTemplates, Rendered, TemplateChat, TemplateSandbox

HF = tiny_tokenizer()
USER = {"role": "user", "content": "你好"}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
CHATS: list[dict[str, Any]] = [
    {"messages": [USER]},
    {"messages": [USER, {"role": "assistant", "content": "a"}], "prompt_end": PromptEnd.MESSAGE},
    {"messages": [USER], "prompt_end": PromptEnd.NOTHING, "variables": {"enable_thinking": False}},
    {"messages": [USER], "special_tokens": {"bos_token": "<own>"}},
    {
        "messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}],
    },
    {"messages": [{"role": "unheard of", "content": "x"}]},
    {"messages": []},
]
COSTLY = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 'x' * 10 ** 10 }}",
    "{% set n = namespace(x='x') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{{ ('%' ~ 10 ** 10 ~ 'd') | format(1) }}",
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[TemplateSandbox]:
    sandbox = TemplateSandbox()
    yield sandbox
    sandbox.close()


def chat(template: str, **fields: Any) -> TemplateChat:
    fields = {"messages": [USER], **fields}
    return TemplateChat(template=template, base_tokens=HF.special_tokens_map, **fields)


def rendered_here(template: str, messages: list[dict[str, Any]], **fields: Any) -> str | None:
    try:
        return render_chat(HF, messages, template=template, **fields)
    except TEMPLATE_ERRORS:
        return None


def processes() -> list[int]:
    """Return the ids of this process's template processes."""
    found = []
    for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        if b"worker.text.templates.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(int(pid))
    return found


@pytest.mark.parametrize("fields", CHATS)
@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, HERMES, LLAMA3, DEEPSEEK_V3, DEEPSEEK_R1, QWEN3]
)
def test_a_chat_is_rendered_as_by_transformers(
    sandbox: TemplateSandbox, template: str, fields: dict[str, Any]
) -> None:
    rendered = sandbox.render(chat(template, **fields))
    assert (None if rendered.error else rendered.text) == rendered_here(template, **fields)


@pytest.mark.parametrize("template", COSTLY)
def test_a_costly_chat_is_refused_and_later_ones_are_rendered(
    sandbox: TemplateSandbox, template: str
) -> None:
    refused = sandbox.render(chat(template))
    assert (refused.text, refused.error) == ("", TOO_COSTLY)
    assert refused.cpu_s >= 1
    assert sandbox.render(chat("fine")).text == "fine"


def test_a_text_is_bounded(sandbox: TemplateSandbox) -> None:
    assert len(sandbox.render(chat("{{ 'x' * 2 ** 20 }}")).text) == MAX_TEXT_CHARS
    assert "writes more than" in sandbox.render(chat("{{ 'x' * (2 ** 20 + 1) }}")).error


def test_a_syntax_error_is_told_apart(sandbox: TemplateSandbox) -> None:
    assert sandbox.render(chat("{% if %}")).is_malformed
    assert not sandbox.render(chat("{{ 1 // 0 }}")).is_malformed


def test_processes_that_were_killed_are_replaced(sandbox: TemplateSandbox) -> None:
    sandbox.render(chat("fine"))
    for pid in processes():
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert sandbox.render(chat("fine")).text == "fine"


async def test_another_tenant_is_served_beside_costly_chats() -> None:
    templates = AdapterTemplates()
    await templates.render("blue", chat("fine"))
    costly = [asyncio.create_task(templates.render("red", chat(COSTLY[0]))) for _ in range(3)]
    done: list[Rendered] = []
    while not costly[-1].done():
        done.append(await templates.render("blue", chat("fine")))
        await asyncio.sleep(0.01)
    assert [(await each).error for each in costly] == [TOO_COSTLY] * 3
    assert {each.text for each in done} == {"fine"}
    assert len(done) > 20
