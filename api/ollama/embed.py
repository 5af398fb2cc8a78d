"""Translates requests to /api/embed and /api/embeddings into requests for embeddings. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from api.http.validation import validate
from api.ollama.body import Kind, request_of
from api.requests.unknown_fields import unknown_fields
from api.requests.viewed import ViewedRequest
from api.schema.ollama import OllamaEmbeddingsRequest, OllamaEmbedRequest
from shared.protocol.jobs import Endpoint, View

AnyRequest = OllamaEmbedRequest | OllamaEmbeddingsRequest


def parse_embed(raw: Mapping[str, Any]) -> OllamaEmbedRequest:
    """Validate the body of a request to /api/embed.

    Raises:
        JobFailed: a field is invalid. The error names the field.
    """
    return validate(OllamaEmbedRequest, raw)


def parse_embeddings(raw: Mapping[str, Any]) -> OllamaEmbeddingsRequest:
    """Validate the body of a request to /api/embeddings.

    Raises:
        JobFailed: a field is invalid. The error names the field.
    """
    return validate(OllamaEmbeddingsRequest, raw)


def viewed_embed(request: OllamaEmbedRequest, sent_model: str) -> ViewedRequest:
    """Convert a request to /api/embed, which has an input, into a request for embeddings.

    `sent_model` is the name that the request gives the model. The answer repeats this name.
    """
    return ViewedRequest(
        body={
            "model": request.model,
            "input": request.input,
            "dimensions": request.dimensions or None,
            "truncate_prompt_tokens": None if request.truncate is False else -1,
        },
        endpoint=Endpoint.EMBEDDINGS,
        view=View.OLLAMA,
        request=request_of(Kind.EMBED, sent_model),
        names={},
        ignored=tuple(unused_fields(request)),
        unknown=tuple(unknown_fields(request)),
    )


def viewed_embeddings(request: OllamaEmbeddingsRequest, sent_model: str) -> ViewedRequest:
    """Convert a request to /api/embeddings, which has a prompt, into a request for one embedding.

    As in Ollama, the embedding isn't scaled to length 1. `sent_model` is the name of the model in
    the request.
    """
    return ViewedRequest(
        body={
            "model": request.model,
            "input": request.prompt,
            "normalize": False,
            "truncate_prompt_tokens": -1,
        },
        endpoint=Endpoint.EMBEDDINGS,
        view=View.OLLAMA,
        request=request_of(Kind.EMBEDDINGS, sent_model),
        names={r"input\b": "prompt"},
        ignored=tuple(unused_fields(request)),
        unknown=tuple(unknown_fields(request)),
    )


def unused_fields(request: AnyRequest) -> Iterator[str]:
    """Yield the paths of the known fields that have no effect."""
    if request.keep_alive is not None:
        yield "keep_alive"
    for name, value in (request.options or {}).items():
        if value is not None:
            yield f"options.{name}"
