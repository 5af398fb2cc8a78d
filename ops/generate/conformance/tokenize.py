"""Rows of POST /tokenize and POST /detokenize."""

from ops.generate.conformance.generation import TOOL, USER
from ops.generate.conformance.rows import (
    OWN,
    REFUSED,
    UNKNOWN_MODEL,
    VLLM,
    WARNED,
    WORKS,
    Route,
    Row,
)

_CHAT = {"prompt": None, "messages": [USER]}
_LLAMA = "llama.cpp's name"

TOKENIZE = Route(
    "/tokenize",
    {"prompt": "hi"},
    (
        Row(
            "model",
            VLLM,
            WORKS,
            "styled",
            "an adapter may have its own chat template; the base model by default",
            _CHAT,
        ),
        Row("prompt", VLLM, WORKS, "other", plain="hi"),
        Row("messages", VLLM, WORKS, [USER, USER], "instead of `prompt`", {"prompt": None}, [USER]),
        Row("add_special_tokens", VLLM, WORKS, False, "of `prompt`; not with `messages`"),
        Row("return_token_strs", VLLM, WORKS, True),
        Row("tools", VLLM, WORKS, [TOOL], given=_CHAT),
        Row("add_generation_prompt", VLLM, WORKS, False, given=_CHAT),
        Row("continue_final_message", VLLM, WORKS, True, given=_CHAT),
        Row("chat_template_kwargs", VLLM, WORKS, {"enable_thinking": True}, given=_CHAT),
        Row("chat_template", VLLM, REFUSED, "{{ x }}", "templates come with models and adapters"),
        Row("mm_processor_kwargs", VLLM, REFUSED, {"a": 1}, "the models only read text"),
        Row("media_io_kwargs", VLLM, WARNED, {"a": {}}, "the models only read text"),
        Row("content", OWN, WORKS, "other", f"`prompt` under {_LLAMA}", {"prompt": None}, "hi"),
        Row(
            "add_special",
            OWN,
            WORKS,
            True,
            f"{_LLAMA}; of `content`",
            {"prompt": None, "content": "hi"},
        ),
        Row("parse_special", OWN, REFUSED, False, _LLAMA),
        Row("with_pieces", OWN, REFUSED, True, f"{_LLAMA}; send `return_token_strs`"),
    ),
)

DETOKENIZE = Route(
    "/detokenize",
    {"tokens": [70, 71]},
    (
        Row("tokens", VLLM, WORKS, [70], plain=[70, 71]),
        Row(
            "model",
            VLLM,
            WORKS,
            UNKNOWN_MODEL,
            "unknown names are a 404; adapters have the base model's tokenizer",
        ),
    ),
)
