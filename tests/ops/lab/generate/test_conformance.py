"""The conformance page lists every field. The tests in tests/e2e send each row to a server."""

from collections.abc import Mapping
from typing import Any, get_type_hints

import pytest
from anthropic.types.beta import message_count_tokens_params, message_create_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from pydantic import BaseModel

from api.messages import translate as messages
from api.requests import embeddings, tokenize, unsupported_fields
from api.responses import translate as responses
from api.schema.anthropic import MessageRequest, PromptRequest
from api.schema.chat import ChatCompletionRequest
from api.schema.completions import CompletionRequest
from api.schema.embeddings import EmbeddingRequest
from api.schema.responses import ResponseRequest
from api.schema.tokenize import DetokenizeRequest, TokenizeRequest
from ops.lab.generate.conformance.page import page
from ops.lab.generate.conformance.routes import ROUTES
from ops.lab.generate.conformance.rows import ANTHROPIC, LMDEPLOY, OPENAI, VLLM, Api, Outcome

BY_PATH = {route.path: route for route in ROUTES}
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
EMBEDDINGS, TOKENIZE, DETOKENIZE = "/v1/embeddings", "/tokenize", "/detokenize"
OF_OPENAI = {
    CHAT: chat_create_params.CompletionCreateParamsNonStreaming,
    COMPLETIONS: completion_create_params.CompletionCreateParamsNonStreaming,
    RESPONSES: response_create_params.ResponseCreateParamsNonStreaming,
    EMBEDDINGS: embedding_create_params.EmbeddingCreateParams,
}
"""Fields that OpenAI's client sends to each route."""
SCHEMAS: dict[str, type[BaseModel]] = {
    CHAT: ChatCompletionRequest,
    COMPLETIONS: CompletionRequest,
    RESPONSES: ResponseRequest,
    MESSAGES: MessageRequest,
    COUNT_TOKENS: PromptRequest,
    EMBEDDINGS: EmbeddingRequest,
    TOKENIZE: TokenizeRequest,
    DETOKENIZE: DetokenizeRequest,
}
UNSUPPORTED = {
    RESPONSES: responses.UNSUPPORTED,
    MESSAGES: messages.UNSUPPORTED,
    EMBEDDINGS: embeddings.UNSUPPORTED,
    TOKENIZE: tokenize.UNSUPPORTED,
}
"""Fields that each route refuses. The page's last table has those of the other routes."""


def names(path: str, apis: Api | None = None) -> set[str]:
    """Return the top-level fields of a route, or those that one of the `apis` has."""
    rows = BY_PATH[path].rows
    return {
        row.name.partition(".")[0].partition(":")[0]
        for row in rows
        if apis is None or row.apis & apis
    }


@pytest.mark.parametrize("path", OF_OPENAI)
def test_openais_column_has_the_fields_of_its_client(path: str) -> None:
    assert names(path, OPENAI) == set(get_type_hints(OF_OPENAI[path]))


def test_the_parts_of_messages_in_openais_client_are_listed() -> None:
    listed = {
        row.name.partition(":")[0]
        for part in BY_PATH[CHAT].parts
        if part.path == "messages[0]."
        for row in part.rows
    }
    for message in (
        ChatCompletionAssistantMessageParam,
        ChatCompletionToolMessageParam,
        ChatCompletionUserMessageParam,
    ):
        assert set(get_type_hints(message)) <= listed


def test_anthropics_column_has_the_fields_of_its_client() -> None:
    sent: Mapping[str, Any] = {
        MESSAGES: message_create_params.MessageCreateParamsNonStreaming,
        COUNT_TOKENS: message_count_tokens_params.MessageCountTokensParams,
    }
    for path, params in sent.items():
        assert set(get_type_hints(params)) <= names(path, ANTHROPIC)


@pytest.mark.parametrize("path", SCHEMAS)
def test_every_field_that_a_route_reads_or_refuses_is_listed(path: str) -> None:
    assert {*SCHEMAS[path].model_fields, *UNSUPPORTED.get(path, ())} <= names(path)


def test_the_page_lists_every_unsupported_field_of_chats_and_completions() -> None:
    text = page()
    for name in {*unsupported_fields.CHAT, *unsupported_fields.COMPLETIONS}:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("route", ROUTES, ids=BY_PATH)
def test_a_field_has_one_row_which_is_on_the_page(route: Any) -> None:
    assert len(route.rows) == len({row.name for row in route.rows})
    text = page()
    assert f"\n## `POST {route.path}`\n" in text
    for row in (*route.rows, *(row for part in route.parts for row in part.rows)):
        cells = ["✓" if api in row.apis else "" for api in (OPENAI, VLLM, LMDEPLOY, ANTHROPIC)]
        assert f"| `{row.name}` | {' | '.join(cells)} | {row.outcome} | {row.note} |" in text
        assert row.outcome in Outcome
