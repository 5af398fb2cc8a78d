"""Rows of POST /v1/messages."""

from typing import Any

from ops.generate.conformance.generation import COMMON, EXTENSIONS, USER
from ops.generate.conformance.rows import (
    ANTHROPIC,
    LMDEPLOY,
    MESSAGES_APIS,
    OWN,
    REFUSED,
    VLLM,
    WARNED,
    WORKS,
    Part,
    Route,
    Row,
    reused,
)

TOOL = {"name": "f", "input_schema": {"type": "object"}}
_JSON = {"type": "json_schema", "schema": {"type": "object"}}
_USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
_ANSWER = {"role": "assistant", "content": "x"}

PROMPT_FIELDS = (
    Row("model", MESSAGES_APIS, WORKS, "other", "the base model or an adapter"),
    Row("messages", MESSAGES_APIS, WORKS, [USER, USER], plain=[USER]),
    Row("system", MESSAGES_APIS, WORKS, "Be brief."),
    Row("tools", MESSAGES_APIS, WORKS, [TOOL], "with an `input_schema`"),
    Row(
        "tool_choice",
        MESSAGES_APIS,
        WORKS,
        {"type": "none"},
        "`any` and named tools are enforced; `none` hides tools",
        {"tools": [TOOL]},
    ),
    Row(
        "thinking",
        ANTHROPIC,
        WORKS,
        {"type": "adaptive"},
        "off by default: [reasoning](reasoning.md)",
    ),
    Row("output_config.effort", ANTHROPIC | VLLM, WORKS, "high"),
    Row("chat_template_kwargs", VLLM, WORKS, {"enable_thinking": True}),
    Row("enable_thinking", OWN, REFUSED, True, "send `thinking`"),
    Row("thinking.display", ANTHROPIC, WARNED, "omitted", given={"thinking": {"type": "adaptive"}}),
    Row(
        "thinking.block_binding",
        ANTHROPIC,
        WARNED,
        {"type": "x"},
        given={"thinking": {"type": "adaptive"}},
    ),
    Row("output_config.task_budget", ANTHROPIC, WARNED, {"type": "tokens", "total": 99}),
    Row("cache_control", ANTHROPIC, WARNED, {"type": "ephemeral"}, "prefixes are always cached"),
    Row("speed", ANTHROPIC, WARNED, "fast"),
    Row("betas", ANTHROPIC, WARNED, ["a"]),
    Row("context_management", ANTHROPIC, WARNED, {"edits": []}),
    Row("billing_policy", ANTHROPIC, WARNED, {"a": 1}),
    Row("compaction", ANTHROPIC, WARNED, {"a": 1}),
    Row("user_profile_id", ANTHROPIC, WARNED, "a"),
    Row("workspace_id", ANTHROPIC, WARNED, "a"),
    Row("mcp_servers", ANTHROPIC, REFUSED, [{"type": "url"}]),
    Row("response_format", OWN, REFUSED, {"type": "json_object"}, "send `output_config.format`"),
)
"""Fields that /v1/messages and /v1/messages/count_tokens have in common."""

FIELDS = (
    *PROMPT_FIELDS,
    Row("max_tokens", MESSAGES_APIS, WORKS, 3, plain=8),
    *reused(
        (*COMMON, *EXTENSIONS),
        {
            "temperature": MESSAGES_APIS,
            "top_p": MESSAGES_APIS,
            "top_k": MESSAGES_APIS,
            "stream": MESSAGES_APIS,
            "background": OWN,
            "seed": OWN,
            "min_p": OWN,
            "top_n_sigma": OWN,
            "presence_penalty": OWN,
            "frequency_penalty": OWN,
            "repetition_penalty": OWN,
            "logit_bias": OWN,
            "ignore_eos": OWN,
            "min_tokens": OWN,
            "skip_special_tokens": OWN,
            "stop_token_ids": OWN,
            "allowed_token_ids": OWN,
            "bad_words": OWN,
            "truncate_prompt_tokens": OWN,
            "structured_outputs": OWN,
            "kv_transfer_params": VLLM,
        },
    ),
    Row(
        "stop_sequences",
        MESSAGES_APIS,
        WORKS,
        ["two"],
        given={"structured_outputs": {"choice": ["one two"]}},
    ),
    Row("output_config.format", ANTHROPIC | VLLM, WORKS, _JSON, "schemas are enforced"),
    Row("thinking.budget_tokens", ANTHROPIC, WARNED, 1024, given={"thinking": {"type": "enabled"}}),
    Row("metadata", MESSAGES_APIS, WARNED, {"user_id": "me", "a": 1}, "`user_id` has an effect"),
    Row("service_tier", ANTHROPIC | LMDEPLOY, WARNED, "standard_only"),
    Row("diagnostics", ANTHROPIC, WARNED, {"a": 1}),
    Row("inference_geo", ANTHROPIC, WARNED, "eu"),
    Row("fallbacks", ANTHROPIC, WARNED, ["a"]),
    Row("fallback_credit_token", ANTHROPIC, WARNED, "a"),
    Row("container", ANTHROPIC, REFUSED, "a"),
    Row("thread", ANTHROPIC, REFUSED, {"id": "a"}),
    Row("input_ids", LMDEPLOY, REFUSED, [5], "send /v1/completions"),
    Row("image_data", LMDEPLOY, REFUSED, "x", "the models only read text"),
    Row("return_token_ids", LMDEPLOY, REFUSED, True, "send /v1/chat/completions"),
    Row("return_logprob", LMDEPLOY, REFUSED, True, "send /v1/chat/completions with `logprobs`"),
    Row("return_routed_experts", LMDEPLOY, REFUSED, True),
    Row("include_stop_str_in_output", LMDEPLOY, REFUSED, True),
    Row("stop", OWN, REFUSED, ["x"], "send `stop_sequences`"),
    Row("max_completion_tokens", OWN, REFUSED, 5, "send `max_tokens`"),
    Row("n", OWN, REFUSED, 2),
    Row("logprobs", OWN, REFUSED, True),
    Row("top_logprobs", OWN, REFUSED, 2),
    Row("echo", OWN, REFUSED, True),
)


def _user(*blocks: dict[str, Any]) -> list[dict[str, object]]:
    return [{"role": "user", "content": [*blocks]}]


_RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "x"}

MESSAGES = (
    Row(
        "role: system", ANTHROPIC | VLLM, WORKS, [{"role": "system", "content": "hi"}], plain=[USER]
    ),
    Row(
        "role: assistant",
        MESSAGES_APIS,
        WORKS,
        [USER, _ANSWER],
        "as the last message, it is continued",
        plain=[USER],
    ),
    Row(
        "content: text", MESSAGES_APIS, WORKS, _user({"type": "text", "text": "abc"}), plain=[USER]
    ),
    Row("content: tool_use", MESSAGES_APIS, WORKS, [_USE], plain=[_ANSWER]),
    Row("content: tool_result", MESSAGES_APIS, WORKS, [*_user(_RESULT)], plain=[USER]),
    Row(
        "content: is_error",
        MESSAGES_APIS,
        WARNED,
        _user({**_RESULT, "is_error": True}),
        "of a tool_result: the model sees its text only",
        plain=_user(_RESULT),
    ),
    Row(
        "content: thinking",
        MESSAGES_APIS,
        WORKS,
        [{"role": "assistant", "content": [{"type": "thinking", "thinking": "y"}]}, USER],
        plain=[{"role": "assistant", "content": ""}, USER],
    ),
    Row("content: image", MESSAGES_APIS, REFUSED, _user({"type": "image"})),
    Row("content: document", ANTHROPIC, REFUSED, _user({"type": "document"})),
)

TOOLS = (
    Row("type: custom", ANTHROPIC, WORKS, [{**TOOL, "type": "custom"}], "also without a type"),
    Row("description", MESSAGES_APIS, WORKS, [{**TOOL, "description": "x"}], plain=[TOOL]),
    Row(
        "strict",
        ANTHROPIC,
        WARNED,
        [{**TOOL, "strict": True}],
        "inputs follow their schema if a call is required",
        plain=[TOOL],
    ),
    *(
        Row(name, ANTHROPIC, WARNED, [{**TOOL, name: value}], plain=[TOOL])
        for name, value in (
            ("allowed_callers", ["direct"]),
            ("defer_loading", True),
            ("eager_input_streaming", True),
            ("input_examples", [{"a": 1}]),
        )
    ),
    Row("type: bash_20250124", ANTHROPIC, REFUSED, [{"type": "bash_20250124", "name": "bash"}]),
)

MESSAGE = Route(
    "/v1/messages",
    {"model": "tiny", "messages": [USER], "max_tokens": 8, "seed": 1},
    FIELDS,
    (
        Part("Messages of /v1/messages", "messages", "messages[0].", MESSAGES),
        Part("Tools of /v1/messages", "tools", "tools[0].", TOOLS),
    ),
)
