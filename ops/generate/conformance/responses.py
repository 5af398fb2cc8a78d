"""Rows of POST /v1/responses."""

from ops.generate.conformance.generation import (
    COMMON,
    EXTENSIONS,
    NO_ARGUMENTS,
    SERVED_BY_OPENAI,
    USER,
)
from ops.generate.conformance.rows import (
    LMDEPLOY,
    OPENAI,
    OPENAI_VLLM,
    OWN,
    REFUSED,
    SERVERS,
    STORED_RESPONSE,
    VLLM,
    VLLM_LMDEPLOY,
    WARNED,
    WORKS,
    Part,
    Route,
    Row,
    reused,
)

_TOOL = {"type": "function", "name": "f", "parameters": NO_ARGUMENTS}
_JSON = {"type": "json_schema", "name": "s", "schema": {"type": "object"}}


def _lengthened(row: Row) -> Row:
    """Return a row whose request has the names that this API has for the limit of tokens."""
    if "max_tokens" not in row.given:
        return row
    given = {name: value for name, value in row.given.items() if name != "max_tokens"}
    return Row(
        row.name,
        row.apis,
        row.outcome,
        row.value,
        row.note,
        {**given, "max_output_tokens": row.given["max_tokens"]},
        row.plain,
    )


_SAMPLING = reused(
    (*COMMON, *EXTENSIONS),
    {
        "model": SERVERS,
        "temperature": SERVERS,
        "top_p": SERVERS,
        "stream": SERVERS,
        "user": SERVERS,
        "top_k": VLLM_LMDEPLOY,
        "min_p": LMDEPLOY,
        "top_n_sigma": OWN,
        "seed": VLLM_LMDEPLOY,
        "stop": VLLM_LMDEPLOY,
        "logit_bias": VLLM_LMDEPLOY,
        "presence_penalty": LMDEPLOY,
        "frequency_penalty": LMDEPLOY,
        "repetition_penalty": VLLM_LMDEPLOY,
        "ignore_eos": VLLM_LMDEPLOY,
        "min_tokens": OWN,
        "skip_special_tokens": VLLM_LMDEPLOY,
        "include_stop_str_in_output": VLLM_LMDEPLOY,
        "stop_token_ids": OWN,
        "allowed_token_ids": OWN,
        "bad_words": OWN,
        "truncate_prompt_tokens": OWN,
        "structured_outputs": VLLM,
        "vllm_xargs": VLLM,
        "request_id": VLLM_LMDEPLOY,
        "priority": VLLM,
        "cache_salt": VLLM,
    },
)

FIELDS = (
    Row("input", SERVERS, WORKS, "other", "text, or the items below", plain="hi"),
    *map(_lengthened, _SAMPLING),
    Row("background", SERVERS, WORKS, True, "runs [without its client](jobs.md)"),
    Row("instructions", SERVERS, WORKS, "Be brief."),
    Row("max_output_tokens", SERVERS, WORKS, 3),
    Row("metadata", SERVERS, WORKS, {"a": "b"}, "the response repeats it"),
    Row("previous_response_id", SERVERS, WORKS, STORED_RESPONSE),
    Row("store", SERVERS, WORKS, False, "`false`: the response can't be retrieved"),
    Row("include", SERVERS, WORKS, ["message.output_text.logprobs"]),
    Row("include: other values", SERVERS, WARNED, ["reasoning.encrypted_content"]),
    Row(
        "top_logprobs",
        SERVERS,
        WORKS,
        3,
        "up to 20",
        {"include": ["message.output_text.logprobs"]},
    ),
    Row("tools", SERVERS, WORKS, [_TOOL], "functions only"),
    Row(
        "tool_choice",
        SERVERS,
        WORKS,
        "required",
        given={"tools": [_TOOL], "max_output_tokens": 60},
    ),
    Row(
        "parallel_tool_calls",
        SERVERS,
        WORKS,
        False,
        given={"tools": [_TOOL], "tool_choice": "required", "max_output_tokens": 120},
    ),
    Row("text.format", SERVERS, WORKS, _JSON, "schemas are enforced; `strict` is always on"),
    Row("text.verbosity", SERVERS, REFUSED, "low", "`medium` is accepted"),
    Row("reasoning.effort", SERVERS, WORKS, "high", "[reasoning](reasoning.md)"),
    Row("reasoning.summary", SERVERS, WARNED, "auto", "reasoning isn't summarised"),
    Row("reasoning.generate_summary", SERVERS, WARNED, "auto"),
    Row("reasoning.context", OPENAI, WARNED, "all_turns"),
    Row("reasoning.mode", OPENAI, WARNED, "pro"),
    Row("truncation", SERVERS, REFUSED, "auto", "`disabled` is accepted"),
    Row("max_tool_calls", SERVERS, WARNED, 3, "it limits built-in tools, which aren't supported"),
    Row(
        "stream_options.include_obfuscation",
        OPENAI | LMDEPLOY,
        WARNED,
        True,
        given={"stream": True},
    ),
    *reused(
        SERVED_BY_OPENAI,
        {
            "service_tier": SERVERS,
            "prompt_cache_key": SERVERS,
            "prompt_cache_options": OPENAI,
            "prompt_cache_retention": OPENAI | LMDEPLOY,
            "safety_identifier": OPENAI | LMDEPLOY,
        },
    ),
    Row("access_programs", OPENAI, WARNED, {"cyber": "standard"}),
    Row("background_options", OPENAI, REFUSED, {"completion_window": "2h"}),
    Row("context_management", OPENAI | LMDEPLOY, REFUSED, [{"type": "compaction"}]),
    Row("conversation", OPENAI | LMDEPLOY, REFUSED, "conv_a", "send `previous_response_id`"),
    Row("image", OPENAI, REFUSED, {"context_compression": "enabled"}),
    Row("moderation", OPENAI, REFUSED, {"model": "x"}),
    Row("prompt", SERVERS, REFUSED, {"id": "a"}, "OpenAI's stored prompts"),
    Row("enable_response_messages", VLLM, REFUSED, True),
    Row("previous_input_messages", VLLM, REFUSED, [USER], "send `input`"),
    Row("previous_response", VLLM, REFUSED, {"id": "a"}, "send `previous_response_id`"),
    Row("mm_processor_kwargs", VLLM, WARNED, {"a": 1}, "the models only read text"),
    Row("max_tokens", OWN, REFUSED, 5, "send `max_output_tokens`"),
    Row("max_completion_tokens", OWN, REFUSED, 5, "send `max_output_tokens`"),
    Row("messages", OWN, REFUSED, [USER], "send `input`"),
    Row("n", OWN, REFUSED, 2),
    Row("response_format", OWN, REFUSED, {"type": "json_object"}, "send `text.format`"),
    Row("logprobs", OWN, REFUSED, True, "send `include`"),
    Row("echo", OWN, REFUSED, True),
)

_CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
_OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "x"}
_TEXT = {"type": "input_text", "text": "hi"}
_ASSISTANT = {"role": "assistant", "content": "x"}

ITEMS = (
    Row("message", SERVERS, WORKS, [{"type": "message", **USER}], plain="other"),
    Row("role: developer", SERVERS, WORKS, [{"role": "developer", "content": "hi"}], plain="hi"),
    Row("role: assistant", SERVERS, WORKS, [{"role": "assistant", "content": "hi"}], plain="hi"),
    Row("function_call", SERVERS, WORKS, [USER, _CALL], plain=[USER]),
    Row("function_call_output", SERVERS, WORKS, [_CALL, _OUTPUT], plain=[_CALL]),
    Row(
        "reasoning",
        SERVERS,
        WORKS,
        [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "y"}]}, _ASSISTANT],
        "its text, not its summary or encrypted content",
        plain=[_ASSISTANT],
    ),
    Row(
        "content: input_image",
        SERVERS,
        REFUSED,
        [{"role": "user", "content": [{"type": "input_image"}]}],
    ),
    Row(
        "content: input_file",
        SERVERS,
        REFUSED,
        [{"role": "user", "content": [{"type": "input_file"}]}],
    ),
    Row(
        "content: prompt_cache_breakpoint",
        OPENAI,
        WARNED,
        [{"role": "user", "content": [{**_TEXT, "prompt_cache_breakpoint": {"mode": "x"}}]}],
        "prefixes are always cached",
        plain=[{"role": "user", "content": [_TEXT]}],
    ),
    Row("type: item_reference", OPENAI_VLLM, REFUSED, [{"type": "item_reference", "id": "a"}]),
    Row("type: web_search_call", OPENAI_VLLM, REFUSED, [{"type": "web_search_call", "id": "a"}]),
)

TOOLS = (
    Row("type: function", SERVERS, WORKS, [_TOOL]),
    Row(
        "strict",
        SERVERS,
        WARNED,
        [{**_TOOL, "strict": True}],
        "arguments follow their schema if a call is required",
        plain=[_TOOL],
    ),
    *(
        Row(name, OPENAI, WARNED, [{**_TOOL, name: value}], plain=[_TOOL])
        for name, value in (
            ("defer_loading", True),
            ("allowed_callers", ["direct"]),
            ("output_schema", {"type": "object"}),
            ("async", True),
        )
    ),
    Row("type: web_search", OPENAI_VLLM, REFUSED, [{"type": "web_search"}], "functions only"),
    Row("type: mcp", OPENAI_VLLM, REFUSED, [{"type": "mcp"}], "functions only"),
    Row("type: custom", OPENAI, REFUSED, [{"type": "custom", "name": "f"}], "functions only"),
)

RESPONSES = Route(
    "/v1/responses",
    {"model": "tiny", "input": "hi", "max_output_tokens": 8, "seed": 1},
    FIELDS,
    (
        Part("Input items of a response", "input", "input[0].", ITEMS),
        Part("Tools of a response", "tools", "tools[0].", TOOLS),
    ),
)
