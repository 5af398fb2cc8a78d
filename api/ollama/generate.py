"""Translates requests to /api/generate into chats and completions. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from api.http.validation import validate
from api.ollama.body import Kind, request_of
from api.ollama.conversation import prompt_messages
from api.ollama.fields import (
    NAMES,
    chat_fields,
    is_constrained,
    thinking_check,
    unused_fields,
    with_options,
)
from api.ollama.options import sampling_fields
from api.requests.unknown_fields import unknown_fields
from api.requests.unsupported_fields import NeutralValues, drop_unsupported
from api.requests.viewed import ViewedRequest
from api.schema.ollama import OllamaGenerateRequest
from shared.errors import invalid_param
from shared.protocol.jobs import Endpoint, View

UNSUPPORTED: NeutralValues = {
    "context": ([],),
    "height": (0,),
    "steps": (0,),
    "suffix": ("",),
    "template": ("",),
    "width": (0,),
}
"""Fields of /api/generate that aren't supported."""
_INSTEAD = {
    "context": "the earlier messages to POST /api/chat",
    "template": "the whole prompt with raw: true",
}
_NAMES = {r"messages\b.*": "prompt", **NAMES}


def parse_generate(raw: Mapping[str, Any]) -> OllamaGenerateRequest:
    """Validate the body of a request to /api/generate.

    Raises:
        JobFailed: a field is invalid or unsupported. The error names the field.
    """
    supported = drop_unsupported(raw, UNSUPPORTED, instead=_INSTEAD)
    request = validate(OllamaGenerateRequest, with_options(supported))
    for name in ("system", "images"):
        if request.raw and getattr(request, name):
            raise invalid_param(name, "isn't available with raw: true; leave one of them out")
    return request


def viewed_generate(request: OllamaGenerateRequest, sent_model: str) -> ViewedRequest:
    """Convert a request to /api/generate into the form of a chat or, with `raw`, of a completion.

    `sent_model` is the name that the request gives the model. The answer repeats this name.
    """
    if request.raw:
        return _viewed_completion(request, sent_model)
    images = request.images or []
    messages = prompt_messages(request.prompt or "", request.system, images)
    return ViewedRequest(
        body={**chat_fields(request), "messages": messages},
        view=View.OLLAMA,
        request=request_of(Kind.GENERATE, sent_model),
        names=_NAMES,
        images=tuple(f"images[{i}]" for i in range(len(images))),
        ignored=tuple(unused_in_generate(request)),
        unknown=tuple(unknown_fields(request)),
        check=thinking_check(request),
    )


def _viewed_completion(request: OllamaGenerateRequest, sent_model: str) -> ViewedRequest:
    constraint = {"json_object": True} if request.format == "json" else {"json": request.format}
    return ViewedRequest(
        body={
            "model": request.model,
            "prompt": request.prompt,
            "stream": request.stream is not False,
            **sampling_fields(request.options, "max_tokens"),
            "structured_outputs": constraint if is_constrained(request.format) else None,
            "logprobs": request.top_logprobs or 0 if request.logprobs else None,
        },
        endpoint=Endpoint.COMPLETIONS,
        view=View.OLLAMA,
        request=request_of(Kind.GENERATE, sent_model),
        names=_NAMES,
        ignored=tuple(unused_in_generate(request)),
        unknown=tuple(unknown_fields(request)),
    )


def unused_in_generate(request: OllamaGenerateRequest) -> Iterator[str]:
    """Yield the paths of the known fields that have no effect."""
    yield from unused_fields(request)
    if request.raw and request.think is not None:
        yield "think"
