"""Requests of a batch, and their repetition, against an app that the tests script."""

import time
from typing import Any

import orjson
import pytest
import structlog
from fastapi import FastAPI, Request, Response

from ops.control.batches.answers import BatchAnswer, BatchAnswerer, Later
from shared.protocol.access.rights import Access, Scope

ACCESS = Access(tenant="red", scopes=frozenset({Scope.INFERENCE}), key_id="k1")


class Scripted:
    """An endpoint that answers with the given statuses in turn, and records the requests."""

    def __init__(self, *replies: tuple[int, dict[str, str]]) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []
        self.logged_ids: list[str] = []

    async def _answer(self, request: Request, access: Access, body: dict[str, Any]) -> Response:
        assert (access, body) == (ACCESS, {"model": "a"})
        self.requests.append(request)
        self.logged_ids.append(structlog.contextvars.get_contextvars()["request_id"])
        status, headers = self.replies.pop(0) if self.replies else (200, {})
        text = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
        return Response(text, status, headers=headers)

    async def answered(self, *, left_s: float = 60) -> BatchAnswer:
        answer = await self.ask(left_s=left_s)
        assert isinstance(answer, BatchAnswer)
        return answer

    async def later(self) -> Later:
        later = await self.ask()
        assert isinstance(later, Later)
        return later

    async def ask(self, *, left_s: float = 60) -> BatchAnswer | Later:
        client = BatchAnswerer(
            *(FastAPI(), ACCESS),
            endpoint="/v1/completions",
            key="b",
            expires_s=int(time.time() + left_s),
            answering=self._answer,
        )
        return await client.answer(7, {"model": "a"}, num_bytes=14)


async def test_a_request_has_the_rights_of_its_batch_and_a_key_of_its_own() -> None:
    scripted = Scripted()
    answer = await scripted.answered()
    (request,) = scripted.requests
    assert scripted.logged_ids == [answer.request_id]
    assert request.state.access == ACCESS
    assert request.state.is_preemptible
    assert request.headers["idempotency-key"] == "b-7"
    assert request.headers["x-lorikeet-on-disconnect"] == "continue"
    assert 0 < float(request.headers["x-lorikeet-deadline-s"]) <= 60
    assert (answer.is_success, answer.usage().prompt_tokens) == (True, 3)


@pytest.mark.parametrize(("status", "of_all"), [(429, True), (503, False), (504, False)])
async def test_a_request_that_the_pool_cannot_answer_yet_waits(status: int, of_all: bool) -> None:
    scripted = Scripted((status, {"Retry-After": "20"}), (status, {}))
    later = await scripted.later()
    assert later.of_all is of_all, "a limit holds for all requests"
    assert 20 <= later.wait_s <= 30
    assert 1 <= (await scripted.later()).wait_s <= 1.5
    await scripted.answered()


@pytest.mark.parametrize(
    "reply", [(400, {}), (404, {}), (409, {}), (500, {}), (429, {"X-Should-Retry": "false"})]
)
async def test_other_errors_are_final(reply: Any) -> None:
    assert (await Scripted(reply).answered()).status == reply[0]


async def test_a_job_that_was_too_late_is_no_answer() -> None:
    await Scripted((504, {"X-Should-Retry": "false"})).later()


async def test_nothing_is_sent_once_the_time_is_over() -> None:
    scripted = Scripted()
    answer = await scripted.answered(left_s=-1)
    assert (answer.status, b"batch_expired" in answer.body) == (408, True)
    assert scripted.requests == []


async def test_a_line_of_the_output_has_the_whole_answer() -> None:
    answer = await Scripted().answered()
    line = orjson.loads(answer.line("batch_abc", 7, "mine"))
    assert line == {
        "id": "batch_req_abc_7",
        "custom_id": "mine",
        "response": {
            "status_code": 200,
            "request_id": answer.request_id,
            "body": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        },
        "error": None,
    }


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, (0, 0, 0)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}, (5, 0, 2)),
        ({"input_tokens": 4, "output_tokens": 6, "input_tokens_details": None}, (4, 6, 0)),
    ],
)
def test_usage_is_read_in_each_apis_form(usage: Any, expected: tuple[int, int, int]) -> None:
    body = orjson.dumps({"usage": usage})
    found = BatchAnswer(status=200, body=body, request_id="", job=None).usage()
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == expected
