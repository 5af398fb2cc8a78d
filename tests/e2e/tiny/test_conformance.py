"""Each row of the conformance page, sent to a running server."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from adapter_traffic import LOAD, UNLOAD
from served_tiny import TEMPLATE_OF_MESSAGES, TinyModels
from servers import Server
from tiny import save_adapter, tiny_tokenizer

from ops.lab.generate.conformance.routes import ROUTES
from ops.lab.generate.conformance.rows import STORED_RESPONSE, UNKNOWN_MODEL, Outcome, Route, Row

VOCABULARY = tiny_tokenizer().get_vocab()
END = "<|end|>"
OTHER, STYLED = "other", "styled"
"""Adapters that the table names. The second one has its own chat template."""
THINKING = TEMPLATE_OF_MESSAGES + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
"""Template whose prompts begin the reasoning."""


def biased(**biases: int) -> dict[str, Any]:
    """Return a field that makes tokens likely or unlikely."""
    return {"logit_bias": {str(VOCABULARY[token]): bias for token, bias in biases.items()}}


CONTEXT: dict[str, dict[str, Any]] = {
    "ignore_eos": biased(**{END: 100}),
    "min_tokens": biased(**{END: 100}),
    "min_new_tokens": biased(**{END: 100}),
    "skip_special_tokens": biased(**{"<|user|>": 100}),
    "parallel_tool_calls": biased(**{END: -100}),
    "include_reasoning": {"model": "styled"},
    **{
        f"sampling_params.{name}": {"sampling_params": biased(**{token: 100})}
        for name, token in (
            *(("ignore_eos", END), ("min_new_tokens", END)),
            ("skip_special_tokens", "<|user|>"),
        )
    },
    "separate_reasoning": {"model": "styled"},
}
"""For fields whose effect depends on the model, other fields of the request."""
VARYING = (
    *("id", "item_id", "call_id", "created", "created_at", "completed_at", "cached_tokens"),
    *("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"),
)
"""Fields of responses that differ between equal requests."""
REPEATED = ("metadata", "store", "service_tier")
"""Fields of /v1/responses whose effect is visible only in the response's copy of them."""


@pytest.fixture(scope="module", autouse=True)
def adapters(server: Server, models: TinyModels) -> Iterator[None]:
    """Let the server serve the table's adapters during these tests."""
    for seed, name in enumerate((OTHER, STYLED)):
        save_adapter(models.folder / name, seed=seed, r=4, target_modules="all-linear")
    (models.folder / STYLED / "chat_template.jinja").write_text(THINKING)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for name in (OTHER, STYLED):
            body = {"lora_name": name, "lora_path": str(models.folder / name)}
            http.post(LOAD, json=body).raise_for_status()
        yield
        for name in (OTHER, STYLED):
            http.post(UNLOAD, json={"lora_name": name}).raise_for_status()


@pytest.fixture(scope="module")
def send(server: Server) -> Iterator[Any]:
    """Return a function that sends a request to a route. Equal requests are sent once."""
    answers: dict[str, httpx.Response] = {}
    with httpx.Client(base_url=server.url, timeout=60) as client:

        def send_one(path: str, body: dict[str, Any]) -> httpx.Response:
            key = path + json.dumps(body, sort_keys=True)
            if key not in answers:
                answers[key] = client.post(path, json=body)
            return answers[key]

        yield send_one


def merged(*requests: dict[str, Any]) -> dict[str, Any]:
    """Return a request with the fields of all. Objects with the same name are merged."""
    result: dict[str, Any] = {}
    for request in requests:
        for name, value in request.items():
            is_nested = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = merged(result[name], value) if is_nested else value
    return result


def nested(path: str, value: Any) -> dict[str, Any]:
    """Return `{"a": {"b": value}}` for the path `a.b` and a value."""
    name, _, rest = path.partition(".")
    return {name: nested(rest, value) if rest else value}


def effect(response: httpx.Response, route: Route, field: str) -> Any:
    """Return what a response says, without the parts that differ between equal requests.

    Of a stream, these are the paths and types of its events' fields, because the number of events
    depends on time.
    """
    if response.headers["Content-Type"].startswith("application/x-ndjson"):
        return {path for line in response.text.splitlines() for path in paths(json.loads(line))}
    if response.headers["Content-Type"].startswith("text/event-stream"):
        lines = response.text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        return {path for event in events for path in paths(event)}
    body = response.json()
    if field == "rid":
        return response.status_code, body["meta_info"]["id"]
    if route.path == "/v1/responses" and response.status_code == 200:
        kept = ("status", "output", "usage", *(REPEATED if field in REPEATED else ()))
        body = {name: body[name] for name in kept}
    if route.path == "/v1/messages" and response.status_code == 200:
        usage = body["usage"]  # repeated prompts are cached, and cached tokens are counted apart
        usage["input_tokens"] += usage.pop("cache_read_input_tokens")
    return response.status_code, constant(body)


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path and the type of each part of a JSON value."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from paths(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{path}[]")
    else:
        yield f"{path}: {type(value).__name__}"


def constant(value: Any) -> Any:
    """Return a JSON value without what varies. Numbers are rounded, as batches change their end."""
    if isinstance(value, dict):
        return {name: constant(item) for name, item in value.items() if name not in VARYING}
    if isinstance(value, list):
        return [constant(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def requests_of(route: Route) -> Iterator[tuple[Row, str, dict[str, Any], dict[str, Any]]]:
    """Yield each row, the path of its field, and the fields of a request with and without it."""
    for row in route.rows:
        path = row.name.partition(":")[0]
        plain = nested(path, row.plain) if row.plain is not None else {}
        yield row, path, nested(path, row.value), plain
    for part in route.parts:
        for row in part.rows:
            plain = {part.field: row.plain} if row.plain is not None else {}
            yield row, part.path + row.name.partition(":")[0], {part.field: row.value}, plain


def assert_outcome(
    send: Any, route: Route, row: Row, path: str, value: dict[str, Any], plain: dict[str, Any]
) -> None:
    """Check that a server treats a request as the row says, compared with one without the field.

    `path` is the path of the row's field in errors and warnings.
    """
    given = merged(route.request, CONTEXT.get(row.name, {}), row.given)
    if row.value == STORED_RESPONSE:
        value = {row.name: send("/v1/responses", route.request).json()["id"]}
    response = send(route.path, merged(given, value))
    warning = response.headers.get("X-Lorikeet-Warning")
    if row.outcome is Outcome.REFUSED:
        assert response.status_code == 400, response.text
        body = response.json()
        error = body if isinstance(body["error"], str) else body["error"]  # Ollama's is a string
        assert error.get("param", path).startswith(path)
        assert path in (error.get("message") or body["error"])
        return
    without = send(route.path, merged(given, plain))
    assert without.status_code == 200, without.text
    assert "X-Lorikeet-Warning" not in without.headers
    expected = [404] if row.value == UNKNOWN_MODEL else [200, 202]
    assert response.status_code in expected, response.text
    is_changed = effect(response, route, row.name) != effect(without, route, row.name)
    if row.outcome is Outcome.WORKS:
        assert warning is None
        # tests/api/adapters/test_candidates.py shows the effect of those that need a canary, and
        # tests/worker/engine/test_engine.py that of `cache_salt`.
        # tests/api/ollama/test_embeddings.py shows the effect of those that need a long input.
        assert is_changed or row.is_shown_elsewhere, response.text
    else:
        assert (warning or "").startswith(f"not used: {path}")
        assert not is_changed, (response.text, without.text)


each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)


@each_route
@pytest.mark.slow
def test_each_field_is_treated_as_the_page_says(send: Any, route: Route) -> None:
    wrong = []
    for row, path, value, plain in requests_of(route):
        try:
            assert_outcome(send, route, row, path, value, plain)
        except AssertionError as error:
            wrong.append(f"{path}: {error}")
    assert wrong == []


@each_route
def test_equal_requests_have_equal_answers(server: Server, route: Route) -> None:
    first, again = (
        httpx.post(server.url + route.path, json=route.request, timeout=60) for _ in range(2)
    )
    assert first.status_code == 200, first.text
    assert effect(first, route, "") == effect(again, route, "")
