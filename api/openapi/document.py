"""Builds the OpenAPI document from the request schemas and the names of all models."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.access.authenticator import SCHEME
from api.http.errors import OLLAMA_PATH
from api.http.guards import Guards
from api.http.headers import DEADLINE_HEADER, REQUEST_ID_HEADER
from api.openapi.entries import REF
from api.schema.adapter_versions import PinRequest, SetCandidateRequest
from api.schema.adapters import LoadAdapterRequest, UnloadAdapterRequest, ValidateAdapterRequest
from api.schema.anthropic import MessageRequest, PromptRequest
from api.schema.batches import CreateBatchRequest
from api.schema.chat import ChatCompletionRequest
from api.schema.completions import CompletionRequest
from api.schema.embeddings import EmbeddingRequest
from api.schema.errors import ErrorBody
from api.schema.generate import AbortRequest, GenerateRequest
from api.schema.job_actions import JobActionRequest
from api.schema.keys import CreateKeyRequest
from api.schema.models import ModelCard
from api.schema.ollama import (
    OllamaChatRequest,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
)
from api.schema.ollama_models import OllamaError, OllamaPullRequest, OllamaShowRequest
from api.schema.responses import ResponsePrompt, ResponseRequest
from api.schema.scores import RerankRequest, ScoreRequest
from api.schema.sglang import (
    ContinueRequest,
    LoadTensorsRequest,
    PauseRequest,
    SglangLoadRequest,
    SglangUnloadRequest,
)
from api.schema.tokenize import DetokenizeRequest, TokenizeRequest
from shared.settings import ApiSettings

REQUESTS: tuple[type[BaseModel], ...] = (
    *(ChatCompletionRequest, CompletionRequest),
    *(ResponseRequest, ResponsePrompt, MessageRequest, PromptRequest),
    *(EmbeddingRequest, ScoreRequest, RerankRequest),
    *(OllamaChatRequest, OllamaGenerateRequest, OllamaEmbedRequest, OllamaEmbeddingsRequest),
)
"""Classes of the requests whose field `model` names a model."""
TOKENIZER_REQUESTS = (TokenizeRequest, DetokenizeRequest)
MANAGEMENT_REQUESTS: tuple[type[BaseModel], ...] = (
    *(LoadAdapterRequest, UnloadAdapterRequest, ValidateAdapterRequest),
    *(SetCandidateRequest, PinRequest),
    *(SglangLoadRequest, LoadTensorsRequest, SglangUnloadRequest),
    *(PauseRequest, ContinueRequest, AbortRequest),
    CreateKeyRequest,
)
_REQUEST_ID = {
    "description": "Id of the request: sent by the client or generated.",
    "schema": {"type": "string"},
}
_KEY_ERRORS = {
    "401": "The API key is missing or unknown.",
    "403": "The API key may not use this URL.",
}
_EXAMPLES: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 64,
        "temperature": 0.8,
    },
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 64, "temperature": 0.8},
    "/v1/embeddings": {"input": ["hi"]},
    "/v1/score": {"text_1": "Which bird is small?", "text_2": ["The wren.", "The swan."]},
    "/v1/rerank": {"query": "Which bird is small?", "documents": ["The wren.", "The swan."]},
}
"""For each path, the fields of its example, except `model`."""
DESCRIPTION = """Serves one base model and LoRA adapters for it. The `model` field of a request
names the base model or an adapter; [/v1/models]({root}/v1/models) lists all names."""


def describe(
    app: FastAPI, *, with_keys: bool, settings: ApiSettings, guards: Guards
) -> dict[str, Any]:
    """Build the OpenAPI document of `app`, without the names of models.

    `with_keys` states whether clients need API keys, and `guards` states which routes need them.
    """
    root = settings.root_path
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION.format(root=root),
        routes=app.routes,
        servers=[{"url": root}] if root else None,
    )
    schemas = document["components"]["schemas"]
    documented: tuple[type[BaseModel], ...] = (
        *REQUESTS,
        GenerateRequest,
        *TOKENIZER_REQUESTS,
        *MANAGEMENT_REQUESTS,
        *(CreateBatchRequest, JobActionRequest),
        *(OllamaShowRequest, OllamaPullRequest),
        *(ErrorBody, OllamaError),
    )
    for model in documented:
        schema = model.model_json_schema(ref_template=REF)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    # FastAPI documents its own validation, which no route uses.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == DEADLINE_HEADER:
                    parameter["schema"] = parameter["schema"] | {"maximum": settings.deadline_s}
            for response in operation["responses"].values():
                response.setdefault("headers", {})[REQUEST_ID_HEADER] = _REQUEST_ID
    if with_keys:
        _add_keys(document, guards)
    return document


def _add_keys(document: dict[str, Any], guards: Guards) -> None:
    scheme = {"type": "http", "scheme": SCHEME}
    document["components"]["securitySchemes"] = {"key": scheme}
    for path, operations in document["paths"].items():
        if not guards.is_open(path):
            body = OllamaError if path.startswith(OLLAMA_PATH) else ErrorBody
            error = {"$ref": REF.format(model=body.__name__)}
            for operation in operations.values():
                operation["security"] = [{"key": []}]
                for status, meaning in _KEY_ERRORS.items():
                    operation["responses"].setdefault(
                        status,
                        {
                            "description": meaning,
                            "content": {"application/json": {"schema": error}},
                            "headers": {REQUEST_ID_HEADER: _REQUEST_ID},
                        },
                    )


def with_models(document: dict[str, Any], cards: Sequence[ModelCard]) -> dict[str, Any]:
    """Return a copy of `document` that lists the models in `cards` and has examples for each."""
    document = copy.deepcopy(document)
    names = [card.id for card in cards]
    if not names:
        return document
    for model in REQUESTS:
        document["components"]["schemas"][model.__name__]["properties"]["model"]["enum"] = names
    generate = document["components"]["schemas"][GenerateRequest.__name__]["properties"]
    generate["lora_path"]["anyOf"][0]["anyOf"][0]["enum"] = names
    paths = document["paths"]
    for path, fields in _EXAMPLES.items():
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        content["examples"] = {name: {"value": {"model": name, **fields}} for name in names}
    parameter = paths["/v1/models/{model_id}"]["get"]["parameters"][0]
    parameter["schema"]["enum"] = names
    return document
