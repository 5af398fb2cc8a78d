"""Rows that /v1/chat/completions and /v1/completions have in common."""

from ops.generate.conformance.rows import (
    CANARY,
    LMDEPLOY,
    OPENAI,
    OWN,
    REFUSED,
    SERVERS,
    VLLM,
    VLLM_LMDEPLOY,
    WARNED,
    WORKS,
    Row,
)

USER = {"role": "user", "content": "hi"}
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "f", "parameters": NO_ARGUMENTS}}
_REPETITIVE = {"allowed_token_ids": list(range(70, 80)), "max_tokens": 24}
"""Answers in which tokens are repeated."""
_ONE_TWO = {"structured_outputs": {"choice": ["one two"]}}

COMMON = (
    Row("model", SERVERS, WORKS, "other", "the base model or an adapter"),
    Row("temperature", SERVERS, WORKS, 0, "0 to 2"),
    Row("top_p", SERVERS, WORKS, 0.001),
    Row("n", SERVERS, WORKS, 2, "up to 128"),
    Row("stop", SERVERS, WORKS, ["two"], "up to 16 strings", _ONE_TWO),
    Row("seed", SERVERS, WORKS, 7, "equal seeds give equal samples", plain=1),
    Row("max_tokens", SERVERS, WORKS, 3),
    Row("presence_penalty", SERVERS, WORKS, 2, given=_REPETITIVE),
    Row("frequency_penalty", SERVERS, WORKS, 2, given=_REPETITIVE),
    Row("logit_bias", SERVERS, WORKS, {"70": 100}),
    Row("stream", SERVERS, WORKS, True),
    Row("stream_options.include_usage", SERVERS, WORKS, True, given={"stream": True}),
    Row(
        "stream_options.include_obfuscation",
        OPENAI,
        REFUSED,
        True,
        "streams aren't padded",
        {"stream": True},
    ),
    Row("user", SERVERS, WORKS, "me", CANARY, needs_canary=True),
)
"""OpenAI's fields."""

EXTENSIONS = (
    Row("top_k", VLLM_LMDEPLOY, WORKS, 1),
    Row("min_p", VLLM_LMDEPLOY, WORKS, 1),
    Row("top_n_sigma", OWN, WORKS, 0.001, "as in llama.cpp"),
    Row("repetition_penalty", VLLM_LMDEPLOY, WORKS, 100),
    Row("min_tokens", VLLM, WORKS, 3, "before an end-of-sequence token or a stop string"),
    Row("ignore_eos", VLLM_LMDEPLOY, WORKS, True),
    Row("background", OWN, WORKS, True, "from OpenAI's Responses API: [no client](jobs.md)"),
    Row("skip_special_tokens", VLLM_LMDEPLOY, WORKS, False),
    Row(
        "stop_token_ids",
        VLLM,
        WORKS,
        [70],
        "the answer doesn't show the token",
        {"logit_bias": {"70": 100}},
    ),
    Row(
        "include_stop_str_in_output",
        VLLM_LMDEPLOY,
        WORKS,
        True,
        "also shows a token of `stop_token_ids`",
        {**_ONE_TWO, "stop": ["two"]},
    ),
    Row("allowed_token_ids", VLLM, WORKS, [70, 71], "up to 4,096"),
    Row(
        "bad_words",
        VLLM,
        WORKS,
        ["x"],
        "up to 256 texts, tokenized as in vLLM",
        {"structured_outputs": {"regex": "[xy]+"}},
    ),
    Row("return_token_ids", VLLM_LMDEPLOY, WORKS, True, "`token_ids`, `prompt_token_ids`"),
    Row(
        "return_tokens_as_token_ids",
        VLLM,
        WORKS,
        True,
        "in logprobs, as `token_id:5`",
        {"logprobs": 1},
    ),
    Row("logprob_token_ids", VLLM, WORKS, [70], "up to 128; with `logprobs`", {"logprobs": 1}),
    Row("prompt_logprobs", VLLM, WORKS, 1, "0 to 20, up to 500,000 in all; without `stream`"),
    Row("truncate_prompt_tokens", VLLM, WORKS, 1, "keeps the end of the prompt"),
    Row("stream_options.continuous_usage_stats", VLLM, WORKS, True, given={"stream": True}),
    Row(
        "structured_outputs",
        VLLM,
        WORKS,
        {"regex": "a+"},
        "`json`, `json_object`, `regex`, `choice` or `grammar`",
    ),
    Row("guided_json", VLLM, WORKS, {"type": "object"}, "the same as `structured_outputs.json`"),
    Row("guided_regex", VLLM, WORKS, "a+"),
    Row("guided_choice", VLLM, WORKS, ["a", "b"]),
    Row("guided_grammar", VLLM, WORKS, 'start: "a"', "Lark or GBNF"),
    Row("structural_tag", VLLM, REFUSED, "{}"),
    Row("use_beam_search", VLLM, REFUSED, True),
    Row("length_penalty", VLLM, REFUSED, 2),
    Row("early_stopping", VLLM, REFUSED, True),
    Row("watermarking", VLLM, REFUSED, True),
    Row("repetition_detection", VLLM, REFUSED, {"min_count": 2}),
    Row("thinking_token_budget", VLLM, REFUSED, 5),
    Row("vllm_xargs", VLLM, REFUSED, {"a": 1}),
    Row("logits_processors", VLLM, REFUSED, ["a.b"]),
    Row("truncation_side", VLLM, REFUSED, "right", "`left` is accepted"),
    Row("spaces_between_special_tokens", VLLM_LMDEPLOY, REFUSED, False),
    Row("return_prompt_text", VLLM, REFUSED, True, "chats: `/tokenize` has the prompt's tokens"),
    Row("priority", VLLM, WARNED, 5, "send `service_tier`"),
    Row("request_id", VLLM, WARNED, "a", "send the header `X-Request-Id`"),
    Row("session_id", VLLM_LMDEPLOY, WARNED, 5),
    Row("cache_salt", VLLM, WARNED, "a", "prefixes are shared within one tenant only"),
    Row("stream_interval", VLLM, WARNED, 5),
    Row("kv_transfer_params", VLLM, WARNED, {"a": 1}),
    Row("ec_transfer_params", VLLM, WARNED, {"a": 1}),
    Row("return_token_offsets", VLLM, WARNED, True, "vLLM ignores it as well"),
    Row("return_mm_kwargs", VLLM, WARNED, False, "vLLM ignores it as well"),
    Row("routed_experts_prompt_start", VLLM, WARNED, 1),
    Row("min_new_tokens", LMDEPLOY, REFUSED, 3, "send `min_tokens`"),
    Row("repetition_ngram_size", LMDEPLOY, REFUSED, 3),
    Row("repetition_ngram_threshold", LMDEPLOY, REFUSED, 3),
)
"""Fields of vLLM, LMDeploy and OpenAI's Responses API that both endpoints have in addition."""

SERVED_BY_OPENAI = (
    Row("service_tier", OPENAI, WORKS, "flex", "its [place in the queue](jobs.md); no `scale`"),
    Row("metadata", OPENAI, WARNED, {"a": "b"}),
    Row("prompt_cache_key", OPENAI, WARNED, "a"),
    Row("prompt_cache_options", OPENAI, WARNED, {"ttl": "30m"}),
    Row("prompt_cache_retention", OPENAI, WARNED, "24h"),
    Row("safety_identifier", OPENAI, WORKS, "a", CANARY, needs_canary=True),
)
"""OpenAI's fields of /v1/chat/completions that /v1/completions accepts as well."""
