"""Rows of POST /v1/embeddings."""

from ops.generate.conformance.generation import USER
from ops.generate.conformance.rows import (
    OPENAI_VLLM,
    OWN,
    REFUSED,
    SERVERS,
    VLLM,
    WARNED,
    WORKS,
    Route,
    Row,
)

EMBEDDINGS = Route(
    "/v1/embeddings",
    {"model": "tiny", "input": "hi"},
    (
        Row("model", SERVERS, WORKS, "other", "the base model or an adapter"),
        Row(
            "input",
            SERVERS,
            WORKS,
            ["hi", "other"],
            "texts or token ids; up to 2,048",
            plain="hi",
        ),
        Row("encoding_format", OPENAI_VLLM, WORKS, "base64"),
        Row("dimensions", OPENAI_VLLM, REFUSED, 1, "the model's own number is accepted"),
        Row("user", SERVERS, WORKS, "me"),
        Row("truncate_prompt_tokens", VLLM, WORKS, 1, "keeps the end of each input"),
        Row("truncation_side", VLLM, REFUSED, "right", "`left` is accepted"),
        Row("add_special_tokens", VLLM, REFUSED, False),
        Row("padding", VLLM, REFUSED, "max_length"),
        Row("embed_dtype", VLLM, REFUSED, "float16", "`float32` is accepted"),
        Row("endianness", VLLM, REFUSED, "big", "`native` and `little` are accepted"),
        Row("use_activation", VLLM, REFUSED, False, "send `normalize`"),
        Row("messages", VLLM, REFUSED, [USER]),
        Row("chat_template", VLLM, REFUSED, "{{ x }}"),
        Row("priority", VLLM, WARNED, 5),
        Row("request_id", VLLM, WARNED, "a", "send the header `X-Request-Id`"),
        Row("cache_salt", VLLM, WARNED, "a", "prefixes are shared within one tenant only"),
        Row("mm_processor_kwargs", VLLM, WARNED, {"a": 1}, "the models only read text"),
        Row("media_io_kwargs", VLLM, WARNED, {"a": {}}, "the models only read text"),
        Row("chat_template_kwargs", VLLM, WARNED, {"a": 1}, "belongs to `messages`"),
        Row("add_generation_prompt", VLLM, WARNED, True, "belongs to `messages`"),
        Row("continue_final_message", VLLM, WARNED, True, "belongs to `messages`"),
        Row("pooling", OWN, WORKS, "mean", "`last`, `mean` or `first`"),
        Row("normalize", OWN, WORKS, False, "as in earlier versions of vLLM"),
        Row("background", OWN, WORKS, True, "runs [without its client](jobs.md)"),
        Row("stream", OWN, REFUSED, True),
    ),
)
