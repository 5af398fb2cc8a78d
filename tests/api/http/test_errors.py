"""Errors in OpenAI's and Anthropic's formats, exceptions, the ids of requests, and their paths."""

import asyncio
from typing import Any

import httpx
import pytest
import structlog
from api_support import RunningApp, ScriptedWorker, error_of, until
from key_support import bearer
from pydantic import SecretStr
from raw_client import BODY, CHAT, with_settings
from structlog.testing import capture_logs

from api.http.canonical_path import WITHOUT_VERSION, canonical_path
from api.http.errors import anthropic_error_body
from api.metrics.metrics import Metrics
from shared.errors import ErrorCode, JobError

NO_THREAD = {"details": {"error_code": "thread_unsupported_request"}}


async def test_unknown_urls_and_methods_are_errors_in_openais_format(
    direct: httpx.AsyncClient,
) -> None:
    response = await direct.get("/v1/nothing")
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["message"].startswith("no such URL: GET /v1/nothing; ")
    assert (error["code"], error["type"]) == ("unknown_url", "invalid_request_error")
    response = await direct.get(CHAT)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    response = await direct.put("/v1/jobs/x")
    assert response.headers["allow"] == "GET, DELETE"
    assert "accepts GET, DELETE" in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


@with_settings(max_waiting=4)
async def test_retry_after_is_the_time_in_which_a_tenth_of_the_waiting_jobs_is_served(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    body = {**BODY, "background": True}
    for _ in range(3):  # a rate of 0.1 per second over the last 30 s
        await worker.serve(http.post(CHAT, json=body))
    for _ in range(4):
        assert (await http.post(CHAT, json=body)).status_code == 202
    refused = await http.post(CHAT, json=body)
    assert error_of(refused) == (429, "queue_full", None)
    assert refused.json()["error"]["type"] == "rate_limit_error"
    retry_after_s = int(refused.headers["retry-after"])
    assert 4 <= retry_after_s <= 6
    assert refused.json()["error"]["message"].endswith(f"; try again in {retry_after_s} s")


@pytest.mark.parametrize(
    ("code", "param", "details"),
    [
        (ErrorCode.UNSUPPORTED_PARAMETER, "thread", NO_THREAD),
        (ErrorCode.UNSUPPORTED_PARAMETER, "stop", {}),
        (ErrorCode.UNSUPPORTED_PARAMETER, None, {}),
        (ErrorCode.INVALID_VALUE, "thread", {}),
    ],
)
def test_anthropics_clients_continue_without_a_thread_that_is_refused(
    code: ErrorCode, param: str | None, details: dict[str, Any]
) -> None:
    error = {"type": "invalid_request_error", "message": "no", "code": code, "param": param}
    body = anthropic_error_body(JobError(code=code, message="no", param=param))
    assert body == {"type": "error", "error": error | details}


async def test_a_client_that_disconnects_while_it_sends_causes_no_error(server: RunningApp) -> None:
    _, port = server.url.removeprefix("http://").split(":")
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        await until(lambda: 'status="499"' in server.pool.part(Metrics).exposition(None).decode())
    assert logs == []


async def test_an_unexpected_exception_is_a_500_without_internals(
    server: RunningApp, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("api.answers.draft.Draft.of", broken)
    with capture_logs() as logs:
        response = await http.post(CHAT, json=BODY)
    assert [(entry["event"], entry["path"]) for entry in logs] == [("request_failed", CHAT)]
    assert response.status_code == 500
    assert response.json()["error"] == {
        "message": "internal error; the server's log has the details under this response's "
        "X-Request-Id",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    assert 'status="500"' in server.pool.part(Metrics).exposition(None).decode()


async def test_a_request_that_is_cancelled_before_its_response_is_told_to_come_again(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def hanging(*_: object, **__: object) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    monkeypatch.setattr("api.answers.draft.Draft.of", hanging)
    request = asyncio.create_task(http.post(CHAT, json=BODY))
    await until(lambda: tasks)
    assert tasks[0]
    tasks[0].cancel()  # as uvicorn does with requests that run longer than the drain time
    response = await request
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "server_stopping"
    assert "retry-after" in response.headers


HEADER = "X-Request-Id"


async def test_the_clients_id_is_returned_unless_it_is_long_or_odd(http: httpx.AsyncClient) -> None:
    for sent in ("a", "trace-1/2:3_4.5+6=7@8", "x" * 128):
        response = await http.get("/health", headers={HEADER: sent})
        assert response.headers[HEADER] == sent
    odd = ("", "x" * 129, "a b", 'a"', "a;b", "<a>", b"\xc3\xa9")
    replies = [await http.get("/health", headers={HEADER: sent}) for sent in odd]  # type: ignore[dict-item]
    ids = {reply.headers[HEADER] for reply in replies}
    assert len(ids) == len(odd)
    assert all(each.startswith("req_") for each in ids)


async def test_error_responses_have_ids(http: httpx.AsyncClient) -> None:
    for response in (
        await http.get("/nothing"),
        await http.get(CHAT),
        await http.post(CHAT, content=b"{"),
        await http.post(CHAT, content=b"x" * 10_001),
    ):
        assert response.is_client_error
        assert response.headers[HEADER].startswith("req_")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_has_an_id_and_the_log_has_it_with_the_job_id(
    http: httpx.AsyncClient, worker: ScriptedWorker, stream: bool
) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        sending = http.post(CHAT, json={**BODY, "stream": stream}, headers={HEADER: "mine"})
        response, job = await worker.serve(sending)
    assert response.headers.get_list(HEADER) == ["mine"]
    (accepted,) = [entry for entry in logs if entry["event"] == "job_accepted"]
    assert (accepted["request_id"], accepted["job_id"]) == ("mine", job.job.id)


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/", "/llm", "/"),
        ("/llm", "/llm", "/"),
        ("/llm/", "/llm", "/"),
        ("/llm/v1/models", "/llm", "/v1/models"),
        ("/llm/llm/v1", "/llm", "/llm/v1"),
        ("/llmx/v1", "/llm", "/llmx/v1"),
        ("/v1/models//", "/llm", "/v1/models"),
        ("//llm/v1", "/llm", "//llm/v1"),
        ("/llm/v1/", "", "/llm/v1"),
    ],
)
def test_the_root_path_and_trailing_slashes_are_removed(
    path: str, root: str, expected: str
) -> None:
    assert canonical_path(path, root) == expected


async def test_a_base_url_may_lack_v1_or_have_it_twice(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    models = (await http.get("/v1/models")).json()
    for path in ("/models", "/models/", "/v1/v1/models"):
        assert (await http.get(path)).json() == models
    for path in ("/chat/completions", "/v1/v1/chat/completions"):
        assert (await http.post(path, json={**BODY, "background": True})).status_code == 202
    for path in WITHOUT_VERSION:
        assert error_of(await http.delete(path))[0] == 405, path
    assert error_of(await http.get("/models/nobody"))[:2] == (404, "model_not_found")
    assert error_of(await http.get("/jobs"))[:2] == (404, "unknown_url")


async def test_a_trailing_slash_changes_nothing(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    assert (await http.post(f"{CHAT}/", json={**BODY, "background": True})).status_code == 202
    assert (await http.get("/v1/models/")).json() == (await http.get("/v1/models")).json()
    assert error_of(await http.get(f"{CHAT}/"))[0] == 405


BELOW = with_settings(root_path="/llm")


@BELOW
async def test_routes_work_with_and_without_the_root_path(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for root in ("", "/llm"):
        reply = await http.post(f"{root}{CHAT}", json={**BODY, "background": True})
        assert reply.headers["location"] == f"/llm/v1/jobs/{reply.json()['id']}"
        assert (await http.get(f"{root}/health")).status_code == 200
    assert error_of(await http.get("/other/v1/models"))[:2] == (404, "unknown_url")


@BELOW
async def test_the_documentation_names_the_root_path(http: httpx.AsyncClient) -> None:
    assert "'/llm/openapi.json'" in (await http.get("/llm/docs")).text
    document = (await http.get("/llm/openapi.json")).json()
    assert document["servers"] == [{"url": "/llm"}]
    assert "](/llm/v1/models)" in document["info"]["description"]


@with_settings(root_path="/llm", api_keys=(SecretStr("red:" + "r" * 20),))
async def test_keys_are_checked_below_the_root_path(direct: httpx.AsyncClient) -> None:
    red = bearer("r" * 20)
    assert (await direct.get("/llm/v1/models")).status_code == 401
    assert (await direct.get("/llm/v1/models", headers=red)).status_code == 200
    assert (await direct.get("/llm/metrics", headers=red)).status_code == 403
    assert (await direct.get("/llm/health")).status_code == 200
