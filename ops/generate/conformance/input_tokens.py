"""Rows of POST /v1/responses/input_tokens."""

from ops.generate.conformance.responses import FIELDS
from ops.generate.conformance.rows import (
    OPENAI,
    OWN,
    REFUSED,
    STORED_RESPONSE,
    WARNED,
    WORKS,
    Route,
    Row,
    reused,
)

_ANSWER = "it doesn't change the prompt"
_AS_RESPONSE = dict.fromkeys(
    (
        *("instructions", "tools", "reasoning.effort", "reasoning.summary"),
        *("reasoning.generate_summary", "reasoning.context", "reasoning.mode"),
        *("text.verbosity", "truncation", "conversation"),
    ),
    OPENAI,
)
"""Fields that are treated as in a request for a response."""

INPUT_TOKENS = Route(
    "/v1/responses/input_tokens",
    {"model": "tiny", "input": "hi"},
    (
        Row("model", OPENAI, WORKS, "styled", "an adapter may have its own chat template"),
        Row("input", OPENAI, WORKS, "hi you", "as in a response", plain="hi"),
        Row(
            "previous_response_id",
            OPENAI,
            WORKS,
            STORED_RESPONSE,
            "`input` may then be left out",
        ),
        *reused(FIELDS, _AS_RESPONSE),
        Row(
            "tool_choice",
            OPENAI,
            WORKS,
            "none",
            "`none` hides tools",
            {"tools": [{"type": "function", "name": "f"}]},
        ),
        Row("chat_template_kwargs", OWN, WORKS, {"enable_thinking": True}),
        Row("parallel_tool_calls: false", OPENAI, WARNED, False, _ANSWER),
        Row(
            "text.format",
            OPENAI,
            WARNED,
            {"type": "json_schema", "name": "s", "schema": {"type": "object"}},
            _ANSWER,
        ),
        Row("personality", OPENAI, REFUSED, "friendly", "send `instructions`"),
        Row("max_output_tokens", OWN, WARNED, 5, "fields that aren't of the prompt have no effect"),
        Row("temperature", OWN, WARNED, 0),
        Row("stream", OWN, WARNED, True),
    ),
)
