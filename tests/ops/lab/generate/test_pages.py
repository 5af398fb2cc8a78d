"""Generated pages and pictures are current, and the conformance page lists every field."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, get_type_hints

import orjson
import pytest
from anthropic.types.beta import message_count_tokens_params, message_create_params
from ollama import _types as ollama
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from pydantic import BaseModel

from api.generate import known_fields as generate
from api.messages import translate as messages
from api.ollama import generate as ollama_generate
from api.requests import embeddings, tokenize, unsupported_fields
from api.responses import translate as responses
from api.schema.anthropic import MessageRequest, PromptRequest
from api.schema.chat import ChatCompletionRequest
from api.schema.completions import CompletionRequest
from api.schema.embeddings import EmbeddingRequest
from api.schema.generate import GenerateRequest
from api.schema.ollama import (
    OllamaChatRequest,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaGenerateRequest,
    OllamaOptions,
)
from api.schema.ollama_models import OllamaShowRequest
from api.schema.responses import ResponseRequest
from api.schema.tokenize import DetokenizeRequest, TokenizeRequest
from ops.lab.generate import (
    architecture_picture,
    bounds_table,
    gpu_sizes,
    helm_schema,
    results_index,
    settings_table,
)
from ops.lab.generate.conformance import page as conformance
from ops.lab.generate.conformance.routes import ROUTES
from ops.lab.generate.conformance.rows import ANTHROPIC, OLLAMA, OPENAI, Api, Outcome
from ops.lab.generate.models import page as models
from ops.lab.generate.models.outcome import VLLM_FILE, read_outcomes
from ops.lab.generate.results_index import FOLDER, page, read_result, results

ROOT = Path(__file__).parents[4]
CITING = [
    *ROOT.glob("*.md"),
    *(ROOT / "ops" / "docs").glob("*.md"),
    *(ROOT / "ops" / "decisions").glob("*.md"),
]
MACHINE = {"cpu": "AMD EPYC", "cores": 2, "cpu_flags": ["avx2"], "commit": "abc-dirty"}


def drawn_architecture() -> str:
    source = architecture_picture.SOURCE.read_text()
    return architecture_picture.draw(architecture_picture.read_drawing(source))


@pytest.mark.parametrize(
    ("command", "file", "generate"),
    [
        ("architecture_picture", architecture_picture.PICTURE, drawn_architecture),
        ("bounds_table", bounds_table.PAGE, bounds_table.page),
        ("conformance", conformance.PAGE, conformance.page),
        ("gpu_sizes", gpu_sizes.PAGE, lambda: gpu_sizes.with_tables(gpu_sizes.PAGE.read_text())),
        ("helm_schema", helm_schema.SCHEMA, helm_schema.schema),
        ("models", models.PAGE, lambda: models.page(read_outcomes(), read_outcomes(VLLM_FILE))),
        ("results_index", results_index.PAGE, results_index.page),
        ("settings_table", settings_table.PAGE, settings_table.page),
    ],
)
def test_a_generated_file_is_current(command: str, file: Path, generate: Callable[[], str]) -> None:
    assert file.read_text() == generate(), f"run `python -m ops.lab.generate.{command}`"


def test_the_architecture_picture_shows_every_text_and_its_folders_exist() -> None:
    drawing = architecture_picture.read_drawing(architecture_picture.SOURCE.read_text())
    picture = ET.fromstring(architecture_picture.PICTURE.read_text())
    shown = {element.text for element in picture.iter() if element.text}
    for box in drawing.boxes:
        assert {box.title, *(text for _, text in box.rows)} <= shown
        assert [each for each, _ in box.rows if not (ROOT / box.folder / each).exists()] == []
    assert {arrow.label for arrow in drawing.arrows} <= shown


def test_a_result_is_the_newest_of_its_kind_or_cited_by_name() -> None:
    cited = "".join(page.read_text() for page in CITING)
    of_kind = [list(group) for _, group in groupby(results(), key=lambda result: result.kind)]
    newest = {max(group, key=lambda result: result.date).path for group in of_kind}
    replaced = [result.path.name for result in results() if result.path not in newest]
    assert [name for name in replaced if name not in cited] == []
    plots = FOLDER.glob("*.png")
    assert [plot.name for plot in plots if not plot.with_suffix(".json").exists()] == []


def write(folder: Path, name: str, **content: Any) -> Path:
    path = folder / name
    path.write_bytes(orjson.dumps({"date": "2026-11-26T10:00:00", "machine": MACHINE, **content}))
    return path


def test_a_finding_is_read_with_its_kind_machine_and_headline_and_its_plot_linked(
    tmp_path: Path,
) -> None:
    said = ["C = 1: base 1 ms", "C = 8: base 2 ms", "C = 32: base 3 ms"]
    path = write(tmp_path, "2026-11-26-abc-dirty-steps.json", says=said)
    result = read_result(path)
    assert (result.kind, result.commit) == ("steps", "abc-dirty")
    assert result.date == "2026-11-26T10:00:00"
    assert result.machine == "2 cores of AMD EPYC, AVX2"
    assert result.headline == "C = 32: base 3 ms"
    assert "plot" not in page(tmp_path)
    path.with_suffix(".png").touch()
    assert "[plot](2026-11-26-abc-dirty-steps.png)" in page(tmp_path)


def test_a_comparison_is_read_at_most_clients_over_adapters(tmp_path: Path) -> None:
    rows = [
        {"scenario": {"kind": kind, "clients": clients}, "tokens_per_s": {"median": speed}}
        for kind, clients, speed in (
            ("adapters", 1, 60),
            ("adapters", 32, 457.6),
            ("base", 32, 493),
        )
    ]
    result = read_result(write(tmp_path, "2026-11-26-abc-dirty.json", summary=rows))
    assert (result.kind, result.headline) == ("comparison", "adapters, 32 clients: 458 tokens/s")


def test_an_unknown_kind_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "2026-11-26-abc-dirty-other.json", says=["x"])
    with pytest.raises(ValueError, match="other"):
        page(tmp_path)


BY_PATH = {route.path: route for route in ROUTES}
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
EMBEDDINGS, TOKENIZE, DETOKENIZE = "/v1/embeddings", "/tokenize", "/detokenize"
GENERATE = "/generate"
OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_EMBED = "/api/chat", "/api/generate", "/api/embed"
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
    GENERATE: GenerateRequest,
    OLLAMA_CHAT: OllamaChatRequest,
    OLLAMA_GENERATE: OllamaGenerateRequest,
    OLLAMA_EMBED: OllamaEmbedRequest,
    "/api/embeddings": OllamaEmbeddingsRequest,
    "/api/show": OllamaShowRequest,
}
UNSUPPORTED = {
    RESPONSES: responses.UNSUPPORTED,
    MESSAGES: messages.UNSUPPORTED,
    EMBEDDINGS: embeddings.UNSUPPORTED,
    TOKENIZE: tokenize.UNSUPPORTED,
    GENERATE: (*generate.UNSUPPORTED, *generate.IGNORED),
    OLLAMA_GENERATE: ollama_generate.UNSUPPORTED,
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


def test_ollamas_column_has_the_fields_and_options_of_its_client() -> None:
    sent = {
        OLLAMA_CHAT: ollama.ChatRequest,
        OLLAMA_GENERATE: ollama.GenerateRequest,
        OLLAMA_EMBED: ollama.EmbedRequest,
        "/api/embeddings": ollama.EmbeddingsRequest,
        "/api/show": ollama.ShowRequest,
    }
    for path, params in sent.items():
        assert set(params.model_fields) <= names(path, OLLAMA)
    for path in (OLLAMA_CHAT, OLLAMA_GENERATE):
        listed = {row.name.removeprefix("options.") for row in BY_PATH[path].rows}
        assert {*ollama.Options.model_fields, *OllamaOptions.model_fields} <= listed


@pytest.mark.parametrize("path", SCHEMAS)
def test_every_field_that_a_route_reads_or_refuses_is_listed(path: str) -> None:
    assert {*SCHEMAS[path].model_fields, *UNSUPPORTED.get(path, ())} <= names(path)


def test_the_page_lists_every_unsupported_field_of_chats_and_completions() -> None:
    text = conformance.page()
    for name in {*unsupported_fields.CHAT, *unsupported_fields.COMPLETIONS}:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("route", ROUTES, ids=BY_PATH)
def test_a_field_has_one_row_which_is_on_the_page(route: Any) -> None:
    assert len(route.rows) == len({row.name for row in route.rows})
    text = conformance.page()
    assert f"\n## `POST {route.path}`\n" in text
    for row in (*route.rows, *(row for part in route.parts for row in part.rows)):
        cells = ["✓" if api in row.apis else "" for api in conformance.columns(route)]
        assert f"| `{row.name}` | {' | '.join(cells)} | {row.outcome} | {row.note} |" in text
        assert row.outcome in Outcome
