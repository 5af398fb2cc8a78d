"""The checks of the bodies of all routes that take JSON, with a valid body of each.

A check does what a route does with a body between its last byte and the queue, as far as that needs
neither Redis nor a worker.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from translated_jobs import ADMISSION

from api.generate.translate import viewed_generation
from api.http.body import parse_json_object
from api.http.validation import validate
from api.messages import translate as messages
from api.ollama import embed as ollama_embed
from api.ollama.chat import parse_chat as parse_ollama_chat
from api.ollama.chat import viewed_chat
from api.ollama.generate import parse_generate, viewed_generate
from api.requests.embeddings import embedding_job, parse_embedding
from api.requests.ignored_fields import NO_OTHERS, OtherFields, all_unknown, warning
from api.requests.request_headers import RequestHeaders, enqueue_options
from api.requests.scores import parse_rerank, parse_score, rerank_job, score_job
from api.requests.tokenize import encode_call, parse_detokenize, parse_tokenize
from api.requests.translate import Admission, chat_job, completion_job, parse_chat, parse_completion
from api.requests.unknown_fields import refuse_unknown
from api.requests.viewed import ViewedRequest
from api.responses import translate as responses
from api.schema.adapter_versions import PinRequest, SetCandidateRequest
from api.schema.adapters import LoadAdapterRequest, UnloadAdapterRequest, ValidateAdapterRequest
from api.schema.base import JobRequest, RequestModel
from api.schema.batches import CreateBatchRequest
from api.schema.generate import AbortRequest
from api.schema.job_actions import JobActionRequest
from api.schema.keys import CreateKeyRequest
from api.schema.ollama_models import OllamaPullRequest, OllamaShowRequest
from api.schema.sglang import (
    ContinueRequest,
    LoadTensorsRequest,
    PauseRequest,
    SglangLoadRequest,
    SglangUnloadRequest,
)
from shared.errors import JobFailed
from shared.protocol.codec import encode_job
from shared.protocol.jobs import Job
from shared.protocol.tools import ToolForm

Raw = dict[str, Any]
LARGE = replace(
    ADMISSION,
    max_model_len=10**9,
    tool_form=ToolForm.HERMES,
    embedding_size=64,
    max_token_bytes=16,
)
HEADERS = RequestHeaders(idempotency_key="k")


@dataclass(frozen=True, slots=True)
class BodyCheck:
    valid: Raw
    """A body that has each kind of container that the route accepts."""
    check_object: Callable[[Raw], object]

    def __call__(self, body: bytes) -> None:
        """Check a body.

        Raises:
            JobFailed: it is refused.
        """
        self.check_object(parse_json_object(body))


def _warned(request: RequestModel, others: OtherFields = NO_OTHERS) -> None:
    with suppress(JobFailed):  # clients may ask for it
        refuse_unknown(all_unknown(request, others))
    warning(request, others)


def _job(parse: Callable[[Raw], Any], job_of: Callable[[Any, Admission], Job]) -> Any:
    def check(raw: Raw, others: OtherFields = NO_OTHERS) -> bytes:
        request: JobRequest = parse(raw)
        _warned(request, others)
        enqueue_options(HEADERS, request, path="/", raw=raw, weight=1.0)
        return encode_job(job_of(request, LARGE))

    return check


def _viewed(view: Callable[[Raw], ViewedRequest]) -> Callable[[Raw], object]:
    def check(raw: Raw) -> object:
        viewed = view(raw)
        return _job(lambda _: viewed.parse(), viewed.job)(raw, viewed.others)

    return check


def _tokenize(raw: Raw) -> object:
    request = parse_tokenize(raw)
    _warned(request)
    return encode_call(request, LARGE)


def _detokenize(raw: Raw) -> None:
    _warned(parse_detokenize(raw))


def _validated(model: type[BaseModel]) -> Callable[[Raw], object]:
    return lambda raw: validate(model, raw)


_PARAMETERS = {"type": "object", "properties": {"a": {"enum": ["x", 1]}}, "required": ["a"]}
_FUNCTION = {"name": "f", "description": "d", "parameters": _PARAMETERS, "strict": True}
_TEXT = {"type": "text", "text": "hi"}
_CHAT_MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [_TEXT, "there"], "name": "ann"},
    {
        "role": "assistant",
        "content": None,
        "annotations": [{}],
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":[1]}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "found"},
]
_CHAT = {
    "model": "m",
    "messages": _CHAT_MESSAGES,
    "tools": [{"type": "function", "function": _FUNCTION}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
    },
    "stop": ["."],
    "logit_bias": {"5": 1},
    "metadata": {"a": "b"},
    "bad_words": ["x"],
    "allowed_token_ids": [1, 2],
    "chat_template_kwargs": {"a": [1]},
    "prediction": {"content": [_TEXT]},
}
_COMPLETION = {
    "model": "m",
    "prompt": ["a", [1, 2]],
    "structured_outputs": {"json": '{"type":"object"}'},
    "stop_token_ids": [1],
    "metadata": {"a": "b"},
    "stream": True,
    "stream_options": {"include_usage": True},
}
_ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]},
    {"type": "message", "role": "assistant", "content": "yes"},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a":[1]}'},
    {"type": "function_call_output", "call_id": "1", "output": "found"},
]
_RESPONSE_PROMPT = {
    "model": "m",
    "input": _ITEMS,
    "tools": [{"type": "function", **_FUNCTION}],
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f"}],
    },
    "text": {"format": {"type": "json_schema", "name": "s", "schema": _PARAMETERS}},
}
_RESPONSE = {**_RESPONSE_PROMPT, "include": ["x"], "metadata": {"a": "b"}, "access_programs": {}}
_MESSAGE_PROMPT = {
    "model": "m",
    "system": [_TEXT],
    "messages": [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "so", "signature": ""},
                _TEXT,
                {"type": "tool_use", "id": "1", "name": "f", "input": {"a": [1]}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "content": [_TEXT]}, _TEXT],
        },
    ],
    "tools": [{"name": "f", "input_schema": _PARAMETERS}],
    "tool_choice": {"type": "auto"},
}
_MESSAGE = {
    **_MESSAGE_PROMPT,
    "max_tokens": 5,
    "stop_sequences": ["."],
    "metadata": {"user_id": "ann"},
    "output_config": {"format": {"type": "json_schema", "schema": _PARAMETERS}},
}
_OLLAMA = {
    "model": "m",
    "format": _PARAMETERS,
    "options": {"stop": ["."], "num_ctx": 9, "other": {}},
    "keep_alive": "5m",
}
_OLLAMA_CHAT = {
    **_OLLAMA,
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "thinking": "so",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": ["x"]}}}],
        },
        {"role": "tool", "content": "found", "tool_name": "f"},
    ],
    "tools": [{"type": "function", "function": _FUNCTION}],
}
_GENERATE = {
    "input_ids": [[1, 2], [3]],
    "lora_path": ["m", "m"],
    "sampling_params": {
        "stop": ["."],
        "stop_token_ids": [1],
        "logit_bias": {"5": 1},
        "json_schema": '{"type":"object"}',
    },
    "return_logprob": True,
    "token_ids_logprob": [[1], [1]],
}
_TOKENIZE = {"model": "m", "messages": _CHAT_MESSAGES, "tools": _CHAT["tools"]}

CHECKS: dict[str, BodyCheck] = {
    "/v1/chat/completions": BodyCheck(_CHAT, _job(parse_chat, chat_job)),
    "/v1/completions": BodyCheck(_COMPLETION, _job(parse_completion, completion_job)),
    "/generate": BodyCheck(_GENERATE, _viewed(lambda raw: viewed_generation(raw, "m"))),
    "/abort_request": BodyCheck({"rid": "a"}, _validated(AbortRequest)),
    "/v1/embeddings": BodyCheck(
        {"model": "m", "input": ["a", "b"]}, _job(parse_embedding, embedding_job)
    ),
    "/v1/score": BodyCheck(
        {"model": "m", "text_1": ["a", "b"], "text_2": ["c", {"text": "d"}]},
        _job(parse_score, score_job),
    ),
    "/v1/rerank": BodyCheck(
        {"model": "m", "query": "a", "documents": ["c", {"text": "d"}]},
        _job(parse_rerank, rerank_job),
    ),
    "/v1/responses": BodyCheck(
        _RESPONSE, _viewed(lambda raw: responses.viewed_response(responses.parse_response(raw), []))
    ),
    "/v1/responses/input_tokens": BodyCheck(
        _RESPONSE_PROMPT,
        _viewed(lambda raw: responses.viewed_prompt(responses.parse_prompt(raw), [])),
    ),
    "/v1/messages": BodyCheck(_MESSAGE, _viewed(messages.viewed_message)),
    "/v1/messages/count_tokens": BodyCheck(_MESSAGE_PROMPT, _viewed(messages.viewed_prompt)),
    "/api/chat": BodyCheck(
        _OLLAMA_CHAT, _viewed(lambda raw: viewed_chat(parse_ollama_chat(raw), "m"))
    ),
    "/api/generate": BodyCheck(
        {**_OLLAMA, "prompt": "hi", "system": "be brief"},
        _viewed(lambda raw: viewed_generate(parse_generate(raw), "m")),
    ),
    "/api/embed": BodyCheck(
        {"model": "m", "input": ["a", "b"], "options": {"num_ctx": 9}},
        _viewed(lambda raw: ollama_embed.viewed_embed(ollama_embed.parse_embed(raw), "m")),
    ),
    "/api/embeddings": BodyCheck(
        {"model": "m", "prompt": "a", "options": {"num_ctx": 9}},
        _viewed(
            lambda raw: ollama_embed.viewed_embeddings(ollama_embed.parse_embeddings(raw), "m")
        ),
    ),
    "/api/show": BodyCheck({"model": "m"}, _validated(OllamaShowRequest)),
    "/api/pull": BodyCheck({"model": "m"}, _validated(OllamaPullRequest)),
    "/tokenize": BodyCheck(_TOKENIZE, _tokenize),
    "/detokenize": BodyCheck({"model": "m", "tokens": [1, 2]}, _detokenize),
    "/v1/batches": BodyCheck(
        {
            "input_file_id": "file-1",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"a": "b"},
        },
        _validated(CreateBatchRequest),
    ),
    "/v1/load_lora_adapter": BodyCheck(
        {"lora_name": "a", "lora_path": "/a"}, _validated(LoadAdapterRequest)
    ),
    "/v1/unload_lora_adapter": BodyCheck({"lora_name": "a"}, _validated(UnloadAdapterRequest)),
    "/load_lora_adapter": BodyCheck(
        {"lora_name": "a", "lora_path": "/a"}, _validated(SglangLoadRequest)
    ),
    "/load_lora_adapter_from_tensors": BodyCheck(
        {"lora_name": "a", "config_dict": {"r": [1]}, "serialized_named_tensors": ["a"]},
        _validated(LoadTensorsRequest),
    ),
    "/unload_lora_adapter": BodyCheck({"lora_name": "a"}, _validated(SglangUnloadRequest)),
    "/pause_generation": BodyCheck({"mode": "abort"}, _validated(PauseRequest)),
    "/continue_generation": BodyCheck({}, _validated(ContinueRequest)),
    "/v1/adapters/validate": BodyCheck({"lora_path": "/a"}, _validated(ValidateAdapterRequest)),
    "/v1/adapters/{name}/candidate": BodyCheck({"percent": 5}, _validated(SetCandidateRequest)),
    "/v1/keys": BodyCheck(
        {"tenant": "a", "scopes": ["inference"], "models": ["sql-*"], "limits": {}},
        _validated(CreateKeyRequest),
    ),
    "/v1/jobs/cancel": BodyCheck({"state": ["queued"]}, _validated(JobActionRequest)),
    "/v1/jobs/retry": BodyCheck({"state": "failed"}, _validated(JobActionRequest)),
    "/v1/adapters/{name}/pin": BodyCheck({"min_replicas": 1}, _validated(PinRequest)),
}
"""The check for each path of a route that takes JSON."""
