"""Rows of POST /v1/chat/completions."""

from dataclasses import replace

from ops.generate.conformance.generation import (
    COMMON,
    EXTENSIONS,
    SERVED_BY_OPENAI,
    TOOL,
    USER,
)
from ops.generate.conformance.rows import (
    LMDEPLOY,
    OPENAI,
    OPENAI_VLLM,
    OWN,
    REFUSED,
    SERVERS,
    VLLM,
    VLLM_LMDEPLOY,
    WARNED,
    WORKS,
    Part,
    Route,
    Row,
)

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
_CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
_ANSWER = {"role": "assistant", "content": "x"}
_RESULT = {"role": "tool", "content": "x", "tool_call_id": "a"}
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}


def _part(kind: str, **fields: object) -> list[dict[str, object]]:
    """Return messages of which one has a content part."""
    return [{**USER, "content": [{"type": kind, **fields}]}]


FIELDS = (
    Row("messages", SERVERS, WORKS, [USER, USER], plain=[USER]),
    *COMMON,
    Row("max_completion_tokens", SERVERS, WORKS, 3),
    Row("logprobs", SERVERS, WORKS, True, "from the model's own distribution, before penalties"),
    Row("top_logprobs", SERVERS, WORKS, 3, "up to 20", {"logprobs": True}),
    Row(
        "response_format",
        SERVERS,
        WORKS,
        _SCHEMA,
        "schemas are enforced in full, or refused by keyword",
    ),
    Row("tools", SERVERS, WORKS, [TOOL], "a 400 if the chat template doesn't support tools"),
    Row(
        "tool_choice",
        SERVERS,
        WORKS,
        "required",
        "`required` and named tools are enforced; `none` hides tools",
        {"tools": [TOOL], "max_tokens": 60},
    ),
    Row(
        "parallel_tool_calls",
        SERVERS,
        WORKS,
        False,
        given={"tools": [TOOL], "tool_choice": "required", "max_tokens": 120},
    ),
    *SERVED_BY_OPENAI,
    Row(
        "prediction",
        OPENAI,
        WARNED,
        {"type": "content", "content": "x"},
        "it would only reduce latency",
    ),
    Row("store", OPENAI, WARNED, True, "answers can be read at /v1/jobs for `--retain-s`"),
    Row("audio", OPENAI, REFUSED, {"voice": "x", "format": "wav"}),
    Row("function_call", OPENAI, REFUSED, {"name": "f"}, "OpenAI's older form of tool_choice"),
    Row("functions", OPENAI, REFUSED, [{"name": "f"}], "OpenAI's older form of tools"),
    Row("modalities", OPENAI, REFUSED, ["text", "audio"], '`["text"]` is accepted'),
    Row("moderation", OPENAI, REFUSED, {"model": "x"}),
    Row(
        "reasoning_effort",
        SERVERS,
        WORKS,
        "high",
        "switches thinking on or off, too: [reasoning](reasoning.md)",
    ),
    Row("verbosity", OPENAI, REFUSED, "low", "`medium` is accepted"),
    Row("web_search_options", OPENAI, REFUSED, {}),
    *(
        replace(row, given={"logprobs": True}) if row.given == {"logprobs": 1} else row
        for row in EXTENSIONS
    ),
    Row(
        "chat_template_kwargs",
        VLLM_LMDEPLOY,
        WORKS,
        {"enable_thinking": True},
        "variables of the chat template, up to 64 KiB",
    ),
    Row(
        "include_reasoning",
        VLLM,
        WORKS,
        False,
        "`false` leaves the [reasoning](reasoning.md) out",
        {"chat_template_kwargs": {"enable_thinking": True}},
    ),
    Row("add_generation_prompt", VLLM, WORKS, False),
    Row("continue_final_message", VLLM, WORKS, True, "not with `add_generation_prompt: true`"),
    Row(
        "echo",
        VLLM,
        WORKS,
        True,
        "the content begins with the last message, if the answer has its role",
        {"add_generation_prompt": False},
    ),
    Row("chat_template", VLLM, REFUSED, "{{ x }}", "templates come with models and adapters"),
    Row("documents", VLLM, REFUSED, [{"text": "x"}]),
    Row("add_special_tokens", VLLM, REFUSED, True, "the chat template adds them"),
    Row("media_io_kwargs", VLLM_LMDEPLOY, WARNED, {"a": {}}, "the models only read text"),
    Row("mm_processor_kwargs", VLLM_LMDEPLOY, WARNED, {"a": 1}, "the models only read text"),
    Row("enable_thinking", LMDEPLOY, WORKS, True, "the same variable of `chat_template_kwargs`"),
    Row("do_preprocess", LMDEPLOY, REFUSED, False, "send /v1/completions"),
    Row("input_ids", LMDEPLOY, REFUSED, [5], "send /v1/completions"),
    Row("image_data", LMDEPLOY, REFUSED, "x", "the models only read text"),
    Row("return_logprob", LMDEPLOY, REFUSED, True, "send `logprobs`"),
    Row("return_routed_experts", LMDEPLOY, REFUSED, True),
)

MESSAGES = (
    Row("role: system", SERVERS, WORKS, [{"role": "system", "content": "hi"}], plain=[USER]),
    Row(
        "role: developer",
        OPENAI_VLLM,
        WORKS,
        [{"role": "developer", "content": "hi"}],
        "the same as system",
        plain=[USER],
    ),
    Row("role: user", SERVERS, WORKS, [USER], plain=[{"role": "system", "content": "hi"}]),
    Row("role: assistant", SERVERS, WORKS, [{"role": "assistant", "content": "hi"}], plain=[USER]),
    Row("role: tool", SERVERS, WORKS, [_RESULT], plain=[{"role": "user", "content": "x"}]),
    Row(
        "role: function",
        OPENAI,
        WORKS,
        [{"role": "function", "content": "hi", "name": "f"}],
        "passed to the chat template, as any other role",
        plain=[{**USER, "name": "f"}],
    ),
    Row(
        "name",
        OPENAI_VLLM,
        WORKS,
        [{**USER, "name": "bob"}],
        "passed to the chat template; few templates use it",
        plain=[USER],
    ),
    Row("tool_calls", SERVERS, WORKS, [_CALLS], plain=[{"role": "assistant", "content": None}]),
    Row("tool_call_id", SERVERS, WORKS, [{**_RESULT, "tool_call_id": "bb"}], plain=[_RESULT]),
    Row("content: text", SERVERS, WORKS, _part("text", text="abc"), plain=[USER]),
    Row("content: image_url", SERVERS, REFUSED, _part("image_url")),
    Row("content: input_audio", OPENAI_VLLM, REFUSED, _part("input_audio")),
    Row("content: file", OPENAI, REFUSED, _part("file")),
    Row(
        "content: refusal",
        OPENAI_VLLM,
        WORKS,
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
        "text, as are `input_text`, `output_text`, `thinking` and strings",
        plain=[_ANSWER],
    ),
    Row("audio", OPENAI_VLLM, REFUSED, [{**_ANSWER, "audio": {"id": "a"}}]),
    Row(
        "refusal",
        OPENAI,
        WORKS,
        [{"role": "assistant", "content": None, "refusal": "no"}],
        "the text of a message without content",
        plain=[{"role": "assistant", "content": None}],
    ),
    Row(
        "reasoning_content",
        VLLM_LMDEPLOY,
        WORKS,
        [{**_ANSWER, "reasoning_content": "y"}],
        "passed to the chat template",
        plain=[_ANSWER],
    ),
    Row("reasoning", VLLM, WORKS, [{**_ANSWER, "reasoning": "y"}], plain=[_ANSWER]),
    Row("annotations", OPENAI, WARNED, [{**_ANSWER, "annotations": [{}]}], plain=[_ANSWER]),
    Row("function_call", OPENAI, REFUSED, [{**_CALLS, "function_call": {"name": "f"}}]),
    Row("prefix", OWN, REFUSED, [{**_ANSWER, "prefix": True}], "send `continue_final_message`"),
    Row("partial", OWN, REFUSED, [{**_ANSWER, "partial": True}], "send `continue_final_message`"),
)

TOOLS = (
    Row("type: function", SERVERS, WORKS, [TOOL]),
    Row(
        "type: custom",
        OPENAI,
        REFUSED,
        [{"type": "custom", "custom": {"name": "f"}}],
        "use a function with one string as its argument",
    ),
    Row(
        "function.description",
        SERVERS,
        WORKS,
        [{"type": "function", "function": {"name": "f", "description": "x"}}],
        plain=[{"type": "function", "function": {"name": "f"}}],
    ),
    Row(
        "function.strict",
        OPENAI_VLLM,
        WARNED,
        [{"type": "function", "function": {"name": "f", "strict": True}}],
        "not with a required call or a constrained answer: their calls always follow the schemas",
        plain=[{"type": "function", "function": {"name": "f"}}],
    ),
    Row("defer_loading", VLLM, WARNED, [{**TOOL, "defer_loading": True}], plain=[TOOL]),
)

CHAT = Route(
    "/v1/chat/completions",
    {"model": "tiny", "messages": [USER], "max_tokens": 8, "seed": 1},
    FIELDS,
    (
        Part("Messages of a chat", "messages", "messages[0].", MESSAGES),
        Part("Tools of a chat", "tools", "tools[0].", TOOLS),
    ),
)
