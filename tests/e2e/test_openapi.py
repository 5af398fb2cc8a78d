"""Valid and invalid requests generated from the OpenAPI document, against a live worker.

The requests are the same each time, because hypothesis derives them from the test's code.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from served_tiny import TinyModels
from servers import Server, lorikeet_up

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CASES = [
    # operation, whether its requests follow the document, number of requests
    ("POST /v1/chat/completions", POSITIVE, 150),
    ("POST /v1/chat/completions", NEGATIVE, 250),
    ("POST /v1/completions", POSITIVE, 150),
    ("POST /v1/completions", NEGATIVE, 200),
    ("POST /v1/responses", POSITIVE, 150),
    ("POST /v1/responses", NEGATIVE, 200),
    ("POST /v1/responses/input_tokens", POSITIVE, 60),
    ("POST /v1/responses/input_tokens", NEGATIVE, 60),
    ("GET /v1/responses/{response_id}", POSITIVE, 40),
    ("DELETE /v1/responses/{response_id}", POSITIVE, 40),
    ("POST /v1/responses/{response_id}/cancel", POSITIVE, 40),
    ("GET /v1/responses/{response_id}/input_items", POSITIVE, 40),
    ("POST /v1/messages", POSITIVE, 150),
    ("POST /v1/messages", NEGATIVE, 200),
    ("POST /v1/messages/count_tokens", POSITIVE, 60),
    ("POST /v1/messages/count_tokens", NEGATIVE, 60),
    ("POST /v1/embeddings", POSITIVE, 100),
    ("POST /v1/embeddings", NEGATIVE, 150),
    ("POST /tokenize", POSITIVE, 60),
    ("POST /tokenize", NEGATIVE, 60),
    ("POST /detokenize", POSITIVE, 40),
    ("POST /detokenize", NEGATIVE, 60),
    ("GET /tokenizer_info", POSITIVE, 1),
    ("POST /v1/adapters", POSITIVE, 40),
    ("POST /pause", POSITIVE, 2),
    ("POST /resume", POSITIVE, 1),
    ("GET /v1/models", POSITIVE, 1),
    ("GET /v1/models/{model_id}", POSITIVE, 4),
    ("GET /v1/models/{model_id}", NEGATIVE, 60),
    ("POST /v1/files", POSITIVE, 30),
    ("GET /v1/files", POSITIVE, 30),
    ("GET /v1/files", NEGATIVE, 30),
    ("GET /v1/files/{file_id}", POSITIVE, 20),
    ("GET /v1/files/{file_id}/content", POSITIVE, 20),
    ("DELETE /v1/files/{file_id}", POSITIVE, 20),
    ("POST /v1/batches", POSITIVE, 40),
    ("POST /v1/batches", NEGATIVE, 60),
    ("GET /v1/batches", POSITIVE, 30),
    ("GET /v1/batches", NEGATIVE, 30),
    ("GET /v1/batches/{batch_id}", POSITIVE, 20),
    ("POST /v1/batches/{batch_id}/cancel", POSITIVE, 20),
    ("DELETE /v1/batches/{batch_id}", POSITIVE, 20),
    ("GET /v1/jobs", POSITIVE, 40),
    ("GET /v1/jobs", NEGATIVE, 60),
    ("GET /v1/jobs/{job_id}", POSITIVE, 70),
    ("GET /v1/jobs/{job_id}/stream", POSITIVE, 70),
    ("DELETE /v1/jobs/{job_id}", POSITIVE, 70),
    ("POST /v1/jobs/{job_id}/cancel", POSITIVE, 70),
    ("POST /v1/jobs/{job_id}/retry", POSITIVE, 40),
    ("GET /v1/adapters", POSITIVE, 1),
    ("GET /v1/adapters/{name}", POSITIVE, 40),
    ("POST /v1/load_lora_adapter", POSITIVE, 60),
    ("POST /v1/load_lora_adapter", NEGATIVE, 100),
    ("POST /v1/unload_lora_adapter", POSITIVE, 40),
    ("POST /v1/unload_lora_adapter", NEGATIVE, 60),
    ("POST /v1/adapters/validate", POSITIVE, 60),
    ("POST /v1/adapters/validate", NEGATIVE, 100),
    ("POST /v1/adapters/{name}/rollback", POSITIVE, 40),
    ("POST /v1/adapters/{name}/rollback", NEGATIVE, 40),
    ("GET /v1/adapters/{name}/candidate", POSITIVE, 20),
    ("PUT /v1/adapters/{name}/candidate", POSITIVE, 30),
    ("PUT /v1/adapters/{name}/candidate", NEGATIVE, 40),
    ("DELETE /v1/adapters/{name}/candidate", POSITIVE, 20),
    ("DELETE /v1/adapters/{name}/candidate", NEGATIVE, 20),
    ("POST /v1/adapters/{name}/candidate/promote", POSITIVE, 20),
    ("POST /v1/adapters/{name}/candidate/promote", NEGATIVE, 20),
    ("PUT /v1/adapters/{name}/pin", POSITIVE, 20),
    ("PUT /v1/adapters/{name}/pin", NEGATIVE, 30),
    ("DELETE /v1/adapters/{name}/pin", POSITIVE, 20),
    ("DELETE /v1/adapters/{name}", POSITIVE, 40),
    ("GET /health", POSITIVE, 1),
    ("GET /ready", POSITIVE, 1),
    ("GET /ready/worker", POSITIVE, 1),
    ("GET /v1/pool", POSITIVE, 1),
    ("GET /v1/usage", POSITIVE, 40),
    ("GET /v1/usage", NEGATIVE, 40),
    ("GET /v1/audit_log", POSITIVE, 30),
    ("GET /v1/audit_log", NEGATIVE, 30),
    ("GET /ping", POSITIVE, 1),
    ("POST /ping", POSITIVE, 1),
    ("GET /version", POSITIVE, 1),
    ("GET /load", POSITIVE, 1),
    ("GET /server_info", POSITIVE, 2),
    ("GET /server_info", NEGATIVE, 10),
    ("GET /get_world_size", POSITIVE, 1),
    ("GET /metrics", POSITIVE, 1),
]
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


def test_every_operation_is_tried_three_thousand_cases_in_all(document: Any) -> None:
    labels = {result.ok().label for result in document.get_all_operations()}
    assert labels - ENDLESS == {label for label, _, _ in CASES}
    assert sum(count for _, _, count in CASES) >= 3000


@pytest.mark.parametrize(
    "share", [pytest.param(0.1, id="tenth"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("label", "mode", "count"), CASES)
def test_every_response_is_documented(
    document: Any, label: str, mode: GenerationMode, count: int, share: float
) -> None:
    count = max(1, int(count * share))
    operation = document.find_operation_by_label(label)
    statuses: list[int] = []

    @settings(
        max_examples=count,
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
    assert len(statuses) >= count
    # A few cases may all be longer than the context.
    if share == 1 and mode is POSITIVE and not any(word in label for word in NAMES_SOMETHING):
        assert 200 in statuses
