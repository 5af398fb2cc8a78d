"""Valid and invalid requests generated from the OpenAPI document, against a live worker.

The requests are the same each time, because hypothesis derives them from the test's code.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from served_tiny import TinyModels
from servers import Server, lorikeet_up

from api.routes.base_weights import REASONS
from ops.lab.generate.conformance.routes import ROUTES
from ops.lab.generate.conformance.rows import Route

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
pytestmark = pytest.mark.timeout(900)

LARGE = {
    *("POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings"),
    *("POST /v1/responses", "POST /v1/responses/input_tokens"),
    *("POST /v1/messages", "POST /v1/messages/count_tokens", "POST /tokenize"),
    *("POST /v1/score", "POST /v1/rerank"),
    *("POST /generate", "POST /api/chat", "POST /api/generate"),
}
"""Operations whose bodies have dozens of fields."""
NUM_OF_LARGE, NUM_OF_OTHERS = 12, 4
"""Numbers of requests of one kind in CI.

One request contradicts the document at one of hundreds of places.

No number that takes minutes finds a fault in one field for sure: 400 requests of each kind missed
a field that took null. So a test of its own sends each field with a value of each type. Those that
are generated are for what it doesn't try: parts of fields, and several fields together.
"""
NEGATIVE_TOO = {
    *LARGE,
    *("POST /detokenize", "GET /v1/models/{model_id}"),
    *("POST /api/embed", "POST /api/embeddings", "POST /api/show", "POST /api/pull"),
    *("GET /v1/files", "POST /v1/batches", "GET /v1/batches", "GET /v1/jobs"),
    *("POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter", "POST /v1/adapters/validate"),
    *("POST /load_lora_adapter", "POST /unload_lora_adapter"),
    *("POST /load_lora_adapter_from_tensors", "POST /abort_request"),
    *("POST /pause_generation", "POST /continue_generation"),
    *("POST /v1/adapters/{name}/rollback", "PUT /v1/adapters/{name}/candidate"),
    *("DELETE /v1/adapters/{name}/candidate", "POST /v1/adapters/{name}/candidate/promote"),
    *("POST /v1/jobs/cancel", "POST /v1/jobs/retry", "GET /v1/pool/history"),
    *("PUT /v1/adapters/{name}/pin", "GET /v1/usage", "GET /v1/audit_log", "GET /server_info"),
}
"""Operations for which a request can contradict the document."""
ENDLESS = {"GET /v1/pool/events"}
"""Operations whose responses don't end; tests/api/routes/test_pool.py has theirs."""
CLOSES_POOL = {"POST /v1/keys"}
"""Operations after which requests need a key; tests/api/access/test_key_routes.py has theirs."""
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
NAMES_SOMETHING = (
    "job_id",
    "key_id",
    "response_id",
    *("{name}", "{worker}"),
    "lora_adapter",
    "validate",
    "POST /v1/adapters",
    *("/v1/files", "/v1/batches"),
    *("/api/show", "/api/pull"),
    *REASONS,  # they are always refused
)
"""Parts of operations that name a resource; random names don't exist."""
EXAMPLES = {f"POST {route.path}" for route in ROUTES}
"""Operations with an example, which is served; generated prompts may all exceed the context."""
DEADLINE = "X-Lorikeet-Deadline-S"
"""Header with the time limit of a request, which may be too short for any answer."""
KEY = "Idempotency-Key"
"""Header that names an earlier request, whose answer is sent again."""
HANG_S = 60


@pytest.fixture(scope="module")
def server(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server whose short context limits the length of answers."""
    folder = tmp_path_factory.mktemp("short")
    flags = ["--max-model-len", "512", "--file-store", str(folder / "files")]
    with lorikeet_up(folder, *models.flags, *flags) as server:
        yield server
        assert "Traceback" not in server.log_text()


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


VALUES: tuple[Any, ...] = (None, False, 0, 0.5, "", [], {})
"""A value of each type, of those that Python takes for false."""


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_field_takes_the_types_that_are_documented(server: Server, route: Route) -> None:
    with httpx.Client(base_url=server.url, timeout=HANG_S) as http:
        document = http.get("/openapi.json").json()
        body = document["paths"][route.path]["post"]["requestBody"]["content"]["application/json"]
        validator = Draft202012Validator({**document, **body["schema"]})
        assert http.post(route.path, json=route.request).status_code == 200
        wrong = []
        for name, value in itertools.product(fields_of(document, body["schema"]), VALUES):
            request = {**route.request, name: value}
            status = http.post(route.path, json=request).status_code
            is_refused = 400 <= status < 500
            if status >= 500 or not (is_refused or validator.is_valid(request)):
                wrong.append((name, value, status))
    assert wrong == []


def fields_of(document: Any, schema: Any) -> list[str]:
    """Return the names of the fields of a body that is described by reference."""
    name = schema["$ref"].removeprefix("#/components/schemas/")
    return list(document["components"]["schemas"][name]["properties"])


@pytest.mark.slow
def test_operations_that_can_be_contradicted_exist(document: Any) -> None:
    labels = {result.ok().label for result in document.get_all_operations()}
    assert labels >= NEGATIVE_TOO | ENDLESS | CLOSES_POOL


@pytest.mark.parametrize(
    ("mode", "factor"),
    [
        pytest.param(POSITIVE, 1, id="valid", marks=pytest.mark.slow),
        pytest.param(POSITIVE, 8, id="many valid", marks=pytest.mark.long),
        pytest.param(NEGATIVE, 5, id="invalid", marks=pytest.mark.long),
    ],
)
def test_every_response_is_documented(document: Any, mode: GenerationMode, factor: int) -> None:
    for operation in (result.ok() for result in document.get_all_operations()):
        label = operation.label
        if label not in ENDLESS | CLOSES_POOL and (mode is POSITIVE or label in NEGATIVE_TOO):
            statuses = statuses_of(operation, mode, factor)
            can_fail = label in EXAMPLES or any(word in label for word in NAMES_SOMETHING)
            if mode is POSITIVE and not can_fail:
                assert 200 in statuses, label


def statuses_of(operation: Any, mode: GenerationMode, factor: int) -> list[int]:
    """Send generated requests, check all responses, and return their statuses.

    `factor` multiplies the number of requests.
    """
    statuses: list[int] = []

    @settings(
        max_examples=factor * (NUM_OF_LARGE if operation.label in LARGE else NUM_OF_OTHERS),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        response = case.call(timeout=HANG_S)
        # A key may stand for an earlier request, whose deadline passed.
        may_be_late = DEADLINE in case.headers or KEY in case.headers
        is_late = response.status_code == 504 and may_be_late
        excluded = [not_a_server_error] if is_late else []
        case.validate_response(response, checks=CHECKS, excluded_checks=excluded)
        statuses.append(response.status_code)

    run()
    return statuses
