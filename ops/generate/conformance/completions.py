"""Rows of POST /v1/completions."""

from ops.generate.conformance.generation import COMMON, EXTENSIONS, SERVED_BY_OPENAI, TOOL, USER
from ops.generate.conformance.rows import (
    LMDEPLOY,
    OPENAI_VLLM,
    OWN,
    REFUSED,
    SERVERS,
    VLLM,
    WORKS,
    Route,
    Row,
    reused,
)

COMPLETIONS = Route(
    "/v1/completions",
    {"model": "tiny", "prompt": "hi", "max_tokens": 8, "seed": 1},
    (
        Row(
            "prompt",
            SERVERS,
            WORKS,
            "other",
            "text or token ids, or a list of prompts; up to 128 answers in all",
            plain="hi",
        ),
        *COMMON,
        Row(
            "max_tokens: 0",
            OPENAI_VLLM,
            WORKS,
            0,
            "with `echo`: the prompt, its `logprobs`, and no tokens",
            {"echo": True, "logprobs": 1},
        ),
        Row("echo", SERVERS, WORKS, True),
        Row(
            "logprobs",
            SERVERS,
            WORKS,
            3,
            "up to 5; with `echo` also for the prompt, up to 500,000 in all",
        ),
        Row("best_of", OPENAI_VLLM, REFUSED, 2, "1 is accepted"),
        Row("suffix", SERVERS, REFUSED, "x"),
        *EXTENSIONS,
        *reused(SERVED_BY_OPENAI, {row.name: OWN for row in SERVED_BY_OPENAI}),
        Row("response_format", VLLM, REFUSED, {"type": "json_object"}, "send `guided_json`"),
        Row("add_special_tokens", VLLM, REFUSED, False),
        Row("prompt_embeds", VLLM, REFUSED, "x"),
        Row("max_completion_tokens", LMDEPLOY, REFUSED, 5, "send `max_tokens`"),
        Row("top_logprobs", OWN, REFUSED, 3, "send a number as `logprobs`"),
        Row("messages", OWN, REFUSED, [USER], "send /v1/chat/completions"),
        Row("tools", OWN, REFUSED, [TOOL], "send /v1/chat/completions"),
    ),
)
