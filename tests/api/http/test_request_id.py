"""Responses and log entries have the id of their request."""

import httpx
import pytest
import structlog
from api_support import ScriptedWorker
from structlog.testing import capture_logs

CHAT = "/v1/chat/completions"
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
HEADER = "X-Request-Id"


async def test_the_clients_id_is_returned(http: httpx.AsyncClient) -> None:
    for sent in ("a", "trace-1/2:3_4.5+6=7@8", "x" * 128):
        response = await http.get("/health", headers={HEADER: sent})
        assert response.headers[HEADER] == sent


async def test_an_id_that_is_long_or_odd_is_replaced_by_a_new_one(http: httpx.AsyncClient) -> None:
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
