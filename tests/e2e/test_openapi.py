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

from ops.lab.generate.conformance.routes import ROUTES
from ops.lab.generate.conformance.rows import Route

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
pytestmark = pytest.mark.timeout(900)

LARGE = {
    *("POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings"),
    *("POST /v1/responses", "POST /v1/responses/input_tokens"),
    *("POST /v1/messages", "POST /v1/messages/count_tokens", "POST /tokenize"),
}
"""Operations whose bodies have dozens of fields."""
NUM_OF_LARGE, NUM_OF_OTHERS = 60, 20
"""Numbers of requests. One request contradicts the document at one of hundreds of places.

No number that takes minutes finds a fault in one field for sure: 400 requests of each kind missed
a field that took null. So a test of its own sends each field with a value of each type. Those that
are generated are for what it doesn't try: parts of fields, and several fields together.
"""
NEGATIVE_TOO = {
    *LARGE,
    *("POST /detokenize", "GET /v1/models/{model_id}"),
    *("GET /v1/files", "POST /v1/batches", "GET /v1/batches", "GET /v1/jobs"),
    *("POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter", "POST /v1/adapters/validate"),
    *("POST /v1/adapters/{name}/rollback", "PUT /v1/adapters/{name}/candidate"),
    *("DELETE /v1/adapters/{name}/candidate", "POST /v1/adapters/{name}/candidate/promote"),
    *("PUT /v1/adapters/{name}/pin", "GET /v1/usage", "GET /v1/audit_log", "GET /server_info"),
}
"""Operations for which a request can contradict the document."""
ENDLESS = {"GET /v1/pool/events"}
"""Operations whose responses don't end; tests/api/routes/test_pool.py has theirs."""
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
NAMES_SOMETHING = (
    "job_id",
    "response_id",
    "{name}",
    "lora_adapter",
    "validate",
    "POST /v1/adapters",
    *("/v1/files", "/v1/batches"),
)
"""Parts of operations that name a resource; random names don't exist."""
DEADLINE = "X-Lorikeet-Deadline-S"
KEY = "Idempotency-Key"
"""Header with the time limit of a request, which may be too short for any answer."""
HANG_S = 60


@pytest.fixture(scope="module")
def server(models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server whose short context limits the length of answers."""
    folder = tmp_path_factory.mktemp("short")
    flags = ["--max-model-len", "64", "--file-store", str(folder / "files")]
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
    assert labels >= NEGATIVE_TOO | ENDLESS


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(POSITIVE, id="valid", marks=pytest.mark.slow),
        pytest.param(NEGATIVE, id="invalid", marks=pytest.mark.long),
    ],
)
def test_every_response_is_documented(document: Any, mode: GenerationMode) -> None:
    for operation in (result.ok() for result in document.get_all_operations()):
        label = operation.label
        if label not in ENDLESS and (mode is POSITIVE or label in NEGATIVE_TOO):
            statuses = statuses_of(operation, mode)
            # A few cases may all be longer than the context.
            if mode is POSITIVE and not any(word in label for word in NAMES_SOMETHING):
                assert 200 in statuses, label


def statuses_of(operation: Any, mode: GenerationMode) -> list[int]:
    """Send generated requests, check all responses, and return their statuses."""
    statuses: list[int] = []

    @settings(
        max_examples=NUM_OF_LARGE if operation.label in LARGE else NUM_OF_OTHERS,
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
