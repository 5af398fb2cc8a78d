"""Rows of POST /v1/messages/count_tokens."""

from ops.generate.conformance.generation import USER
from ops.generate.conformance.messages import PROMPT_FIELDS
from ops.generate.conformance.rows import (
    ANTHROPIC,
    LMDEPLOY,
    OWN,
    VLLM,
    WARNED,
    WORKS,
    Route,
    Row,
    reused,
)

_APIS = ANTHROPIC | VLLM | LMDEPLOY
_OF_PROMPT = {row.name: row.apis for row in PROMPT_FIELDS} | {
    "tool_choice": ANTHROPIC | VLLM,
    "output_config.effort": ANTHROPIC,
}

COUNT_TOKENS = Route(
    "/v1/messages/count_tokens",
    {"model": "tiny", "messages": [USER]},
    (
        *(row for row in reused(PROMPT_FIELDS, _OF_PROMPT) if row.name != "model"),
        Row("model", _APIS, WORKS, "styled", "an adapter may have its own chat template"),
        Row(
            "output_config.format",
            ANTHROPIC,
            WARNED,
            {"type": "json_schema", "schema": {"type": "object"}},
            "a format doesn't change the prompt",
        ),
        Row(
            "thinking.budget_tokens",
            ANTHROPIC,
            WARNED,
            1024,
            given={"thinking": {"type": "enabled"}},
        ),
        Row("max_tokens", OWN, WARNED, 5, "fields that aren't of the prompt have no effect"),
        Row("temperature", OWN, WARNED, 0),
    ),
)
