"""Lists every request field, and how Lorikeet treats the field.

`python -m ops.generate.conformance` generates the page in ops/docs. The tests send each row's value
and check that Lorikeet treats the field as the row says.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from api.requests import unsupported_fields

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"


class Outcome(StrEnum):
    """How Lorikeet treats a field whose value would change the response."""

    WORKS = "works"
    """The field has its effect on the answer."""
    IGNORED = "ignored"
    """The field is accepted but has no effect. The header X-Lorikeet-Warning names the field."""
    REFUSED = "refused"
    """The request is refused with status 400. The error message names the field."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request field, with a value that would change the response if it were supported."""

    name: str
    value: Any
    outcome: Outcome
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    """Other fields that a request with this field must contain."""


WORKS, IGNORED, REFUSED = Outcome
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}

COMMON = (
    Row("model", "other", WORKS, "the base model or an adapter"),
    Row("temperature", 0.5, WORKS),
    Row("top_p", 0.5, WORKS),
    Row("n", 2, WORKS, "up to 128"),
    Row("stop", ["x"], WORKS, "up to 16 strings"),
    Row("seed", 7, WORKS, "equal seeds give equal samples"),
    Row("max_tokens", 5, WORKS),
    Row("presence_penalty", 0.5, WORKS),
    Row("frequency_penalty", 0.5, WORKS),
    Row("logit_bias", {"5": 1}, WORKS),
    Row("stream", True, WORKS),
    Row("stream_options.include_usage", True, WORKS, more={"stream": True}),
    Row("stream_options.include_obfuscation", True, REFUSED, "streams aren't padded"),
    Row("user", "me", IGNORED),
)
"""OpenAI's fields that /v1/chat/completions and /v1/completions have in common."""

CHAT = (
    Row("messages", [USER, USER], WORKS),
    *COMMON,
    Row("max_completion_tokens", 5, WORKS),
    Row("logprobs", True, WORKS, "from the model's own distribution, before bias and penalties"),
    Row("top_logprobs", 3, WORKS, "up to 20", {"logprobs": True}),
    Row(
        "response_format",
        _SCHEMA,
        WORKS,
        "schemas are enforced in full, or refused by keyword; `strict` is always on",
    ),
    Row("tools", [TOOL], WORKS, "functions; a 400 if the chat template doesn't support tools"),
    Row(
        "tool_choice",
        "required",
        WORKS,
        "`required` and named tools are enforced; `none` hides the tools from the model",
        {"tools": [TOOL]},
    ),
    Row("parallel_tool_calls", False, WORKS, more={"tools": [TOOL]}),
    Row("service_tier", "flex", WORKS, "its [place in the queue](jobs.md); `scale` is refused"),
    Row("metadata", {"a": "b"}, IGNORED),
    Row("prediction", {"type": "content", "content": "x"}, IGNORED, "it would only reduce latency"),
    Row("prompt_cache_key", "a", IGNORED),
    Row("prompt_cache_options", {"ttl": "30m"}, IGNORED),
    Row("prompt_cache_retention", "24h", IGNORED),
    Row("safety_identifier", "a", IGNORED),
    Row("store", True, IGNORED, "answers can be read at /v1/jobs for `--retain-s`"),
    Row("audio", {"voice": "x", "format": "wav"}, REFUSED),
    Row("function_call", {"name": "f"}, REFUSED, "OpenAI's older form of tool_choice"),
    Row("functions", [{"name": "f"}], REFUSED, "OpenAI's older form of tools"),
    Row("modalities", ["text", "audio"], REFUSED, '`["text"]` is accepted'),
    Row("moderation", {"model": "x"}, REFUSED),
    Row(
        "reasoning_effort",
        "high",
        WORKS,
        "passed to the chat template; also sets `enable_thinking`: [reasoning](reasoning.md)",
    ),
    Row("verbosity", "low", REFUSED, "`medium` is accepted"),
    Row("web_search_options", {}, REFUSED),
)
"""OpenAI's fields of /v1/chat/completions, including the common fields."""

MESSAGES = (
    Row("role: system", {"role": "system", "content": "x"}, WORKS),
    Row("role: developer", {"role": "developer", "content": "x"}, WORKS, "the same as system"),
    Row("role: user", {"role": "user", "content": "x"}, WORKS),
    Row("role: assistant", {"role": "assistant", "content": "x"}, WORKS),
    Row("role: tool", {"role": "tool", "content": "x", "tool_call_id": "a"}, WORKS),
    Row(
        "role: function",
        {"role": "function", "content": "x", "name": "f"},
        WORKS,
        "passed to the chat template, as any other role",
    ),
    Row(
        "name", {**USER, "name": "bob"}, WORKS, "passed to the chat template; few templates use it"
    ),
    Row("tool_calls", _CALLS, WORKS),
    Row("tool_call_id", {"role": "tool", "content": "x", "tool_call_id": "b"}, WORKS),
    Row("content: text", {**USER, "content": [{"type": "text", "text": "x"}]}, WORKS),
    Row("content: image_url", {**USER, "content": [{"type": "image_url"}]}, REFUSED),
    Row("content: input_audio", {**USER, "content": [{"type": "input_audio"}]}, REFUSED),
    Row("content: file", {**USER, "content": [{"type": "file"}]}, REFUSED),
    Row(
        "content: refusal",
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "x"}]},
        WORKS,
        "text, as are parts of the types `input_text`, `output_text` and `thinking`, and strings",
    ),
    Row("audio", {"role": "assistant", "content": "x", "audio": {"id": "a"}}, REFUSED),
    Row(
        "refusal",
        {"role": "assistant", "content": None, "refusal": "no"},
        WORKS,
        "the text of a message without content",
    ),
    Row(
        "reasoning_content",
        {"role": "assistant", "content": "x", "reasoning_content": "y"},
        WORKS,
        "also as `reasoning`; passed to the chat template",
    ),
    Row("annotations", {"role": "assistant", "content": "x", "annotations": [{}]}, IGNORED),
    Row("function_call", {**_CALLS, "function_call": {"name": "f"}}, REFUSED),
)
"""Parts of a chat message. A row's value is a whole message."""

TOOLS = (
    Row("type: function", [TOOL], WORKS),
    Row(
        "type: custom",
        [{"type": "custom", "custom": {"name": "f"}}],
        REFUSED,
        "use a function with one string as its argument",
    ),
    Row(
        "function.strict",
        [{"type": "function", "function": {"name": "f", "strict": True}}],
        IGNORED,
        "with `tool_choice: auto`; the arguments of required calls always follow the schema",
    ),
)
"""Parts of a tool. A row's value is the whole request field `tools`."""

COMPLETIONS = (
    Row(
        "prompt",
        "other",
        WORKS,
        "text or token ids, or a list of prompts; up to 128 answers in all",
    ),
    *COMMON,
    Row("echo", True, WORKS),
    Row("logprobs", 3, WORKS, "up to 5; with `echo` also for the prompt"),
    Row("best_of", 2, REFUSED, "1 is accepted"),
    Row("suffix", "x", REFUSED),
)
"""OpenAI's fields of /v1/completions, including the common fields."""

EXTENSIONS = (
    Row("top_k", 5, WORKS),
    Row("min_p", 0.1, WORKS),
    Row("repetition_penalty", 1.2, WORKS),
    Row("min_tokens", 3, WORKS, "before an end-of-sequence token or a stop string"),
    Row("ignore_eos", True, WORKS),
    Row(
        "background", True, WORKS, "from OpenAI's Responses API: runs [without its client](jobs.md)"
    ),
    Row("skip_special_tokens", False, WORKS),
    Row("stop_token_ids", [5], WORKS, "the answer doesn't show the token"),
    Row("include_stop_str_in_output", True, WORKS, "also shows a token of `stop_token_ids`"),
    Row("allowed_token_ids", [5, 6], WORKS, "up to 4,096"),
    Row("bad_words", ["x"], WORKS, "up to 256 texts, tokenized as in vLLM"),
    Row("return_token_ids", True, WORKS, "`token_ids` of choices, `prompt_token_ids`"),
    Row("return_tokens_as_token_ids", True, WORKS, "in logprobs, as `token_id:5`"),
    Row("truncate_prompt_tokens", 5, WORKS, "keeps the end of the prompt"),
    Row("stream_options.continuous_usage_stats", True, WORKS, more={"stream": True}),
    Row(
        "structured_outputs",
        {"regex": "a+"},
        WORKS,
        "`json`, `json_object`, `regex`, `choice` or `grammar` (Lark or GBNF); one of them",
    ),
    Row("guided_json", {"type": "object"}, WORKS, "the same as `structured_outputs.json`"),
    Row("guided_regex", "a+", WORKS),
    Row("guided_choice", ["a", "b"], WORKS),
    Row("guided_grammar", 'start: "a"', WORKS),
)
"""Fields of vLLM, LMDeploy and OpenAI's Responses API that both endpoints have in addition."""

CHAT_EXTENSIONS = (
    Row(
        "chat_template_kwargs",
        {"enable_thinking": False},
        WORKS,
        "variables of the chat template, up to 64 KiB",
    ),
    Row("include_reasoning", False, WORKS, "`false` leaves the [reasoning](reasoning.md) out"),
    Row("add_generation_prompt", False, WORKS),
    Row("continue_final_message", True, WORKS, "not with `add_generation_prompt: true`"),
    Row(
        "echo",
        True,
        WORKS,
        "the content begins with the last message, if the answer has its role",
        {"add_generation_prompt": False},
    ),
    Row("chat_template", "{{ messages }}", REFUSED, "templates come with models and adapters"),
)
"""Fields of vLLM that /v1/chat/completions has in addition."""

_PARTS = (
    ("`POST /v1/chat/completions`", CHAT),
    ("Messages of a chat", MESSAGES),
    ("Tools of a chat", TOOLS),
    ("`POST /v1/completions`", COMPLETIONS),
    ("Beyond OpenAI's API, on both endpoints", EXTENSIONS),
    ("Beyond OpenAI's API, on `POST /v1/chat/completions`", CHAT_EXTENSIONS),
)
_HEAD = """# Fields of requests

Every field of OpenAI's API and its treatment when its value asks for something. The page is
generated by `python -m ops.generate.conformance` from a table that the tests check row by row.

- **works**: the answer follows the field.
- **ignored**: the field is accepted and not used, because clients send it to every server. The
  answer's header `X-Lorikeet-Warning` names it.
- **refused**: the request is refused with a 400 that names the field. `null` is accepted, and so is
  a value that asks for nothing.

Any other field is unknown: accepted at any depth, not used, and listed by path in the same header,
which names up to ten fields. With the request header `Prefer: handling=strict`
([RFC 7240](https://www.rfc-editor.org/rfc/rfc7240)), an unknown field is a 400 that names it and
suggests a similar one.
"""
_PEERS = """
## Fields of other servers

These fields would change the answer and aren't supported, so they are refused:

"""


def page() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_part(title, rows) for title, rows in _PARTS) + _PEERS + _refused()


def _refused() -> str:
    """Return a table of the unsupported fields that have no row of their own."""
    with_rows = {row.name for _, rows in _PARTS for row in rows}
    endpoints = {"chat": unsupported_fields.CHAT, "completions": unsupported_fields.COMPLETIONS}
    names = sorted({name for table in endpoints.values() for name in table} - with_rows)
    lines = ["| field | endpoints | send instead |", "| --- | --- | --- |"]
    for name in names:
        where = ", ".join(title for title, table in endpoints.items() if name in table)
        lines.append(f"| `{name}` | {where} | {unsupported_fields.INSTEAD.get(name, '')} |")
    return "\n".join([*lines, ""])


def _part(title: str, rows: tuple[Row, ...]) -> str:
    lines = [f"| `{row.name}` | {row.outcome} | {row.note} |" for row in rows]
    return "\n".join(
        [f"\n## {title}\n", "| field | treatment | notes |", "| --- | --- | --- |", *lines, ""]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
