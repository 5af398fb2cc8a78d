"""Requests of a batch: which waits, their answers and repetition; the announcement of its end."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import orjson
import pytest
import structlog
from arq import Retry
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from threaded_server import LocalServer, QuietHandler, running

from ops.control.batches.answers import BatchAnswer, BatchAnswerer, Later
from ops.control.batches.lines import Line
from ops.control.batches.pending_lines import MAX_WAIT_S, PendingLines
from ops.control.batches.webhook import Webhook
from shared.errors import SettingsError
from shared.protocol.access.rights import Access, Scope
from shared.protocol.ids import BatchId
from shared.settings import ControlSettings
from shared.store.batches.batch_ends import BatchEnd
from shared.store.batches.records import BatchStatus

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


def lines(*models: str) -> list[Line]:
    return [Line(number, 0, 1, model) for number, model in enumerate(models)]


def popped(pending: PendingLines, now: float = 0) -> list[int]:
    found = []
    while line := pending.pop(now):
        found.append(line.number)
    return found


def refuse(pending: PendingLines, now: float, wait_s: float, *, of_all: bool = False) -> float:
    """Pop a line and put it back, as after a refusal; return the wait for the next one."""
    line = pending.pop(now)
    assert line
    pending.put_back(line, now, wait_s, of_all=of_all)
    return pending.wait_s(now)


def test_lines_are_grouped_by_model_in_the_order_of_the_file() -> None:
    assert popped(PendingLines(lines("a", "b", "a", "c", "b"))) == [0, 2, 1, 4, 3]


def test_a_model_that_is_away_leaves_its_place_to_others() -> None:
    pending = PendingLines(lines("a", "a", "b"))
    refuse(pending, 0, 5)
    assert popped(pending) == [2]
    assert (bool(pending), pending.wait_s(1)) == (True, 4)
    assert popped(pending, now=5) == [0, 1]
    assert not pending


def test_a_limit_holds_for_all_models() -> None:
    pending = PendingLines(lines("a", "b"))
    refuse(pending, 0, 60, of_all=True)
    assert (popped(pending, now=59), pending.wait_s(59)) == ([], 1)
    assert popped(pending, now=60) == [0, 1]


def test_waits_for_a_model_become_longer_until_it_is_back() -> None:
    pending, now, waits = PendingLines(lines("a")), 0.0, []
    for _ in range(7):
        waits.append(refuse(pending, now, 1))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 30, MAX_WAIT_S]
    pending.succeeded("a")
    assert refuse(pending, now, 1) == 1


def test_requests_that_were_sent_together_count_as_one_attempt() -> None:
    pending = PendingLines(lines("a", "a", "a"))
    for line in [pending.pop(0) for _ in range(3)]:
        assert line
        pending.put_back(line, 0.5, 1, of_all=False)
    assert pending.wait_s(0.5) == 1


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers())
def test_no_line_is_lost_or_doubled(models: list[str], seed: int) -> None:
    pending, now, served, random = PendingLines(lines(*models)), 0.0, [], Random(seed)
    while pending:
        line = pending.pop(now)
        if line is None:
            now += pending.wait_s(now)
        elif random.random() < 0.4:
            pending.put_back(line, now, 1, of_all=random.random() < 0.5)
        else:
            served.append(line.number)
    assert sorted(served) == list(range(len(models)))


KEY = b"0123456789abcdef"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Receiver(LocalServer):
    """Records calls, and answers with `status`."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.status = 200


class Handler(QuietHandler):
    server: Receiver

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.calls.append((headers, self.read_body()))
        self.reply(self.server.status)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running(Receiver()) as receiver:
        yield receiver


def webhook(url: str, secret: str = SECRET) -> Webhook:
    hook = Webhook.of(ControlSettings(webhook_url=url, webhook_secret=SecretStr(secret)))
    assert hook is not None
    return hook


def an_end(age_s: int = 0) -> BatchEnd:
    return BatchEnd(BatchId("batch_1"), BatchStatus.COMPLETED, int(time.time()) - age_s)


async def test_the_call_is_signed(receiver: Receiver) -> None:
    await webhook(f"{receiver.url}/hook").call(an_end(), 1)
    ((headers, body),) = receiver.calls
    event = json.loads(body)
    assert (event["type"], event["data"]) == ("batch.completed", {"id": "batch_1"})
    signed = b".".join(
        (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    )
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize(("num_tries", "least_s", "most_s"), [(1, 10, 12.5), (40, 3600, 4500)])
async def test_a_failed_call_is_repeated_ever_later(
    receiver: Receiver, num_tries: int, least_s: float, most_s: float
) -> None:
    receiver.status = 500
    with pytest.raises(Retry) as caught:
        await webhook(receiver.url).call(an_end(), num_tries)
    assert least_s * 1000 <= (caught.value.defer_score or 0) <= most_s * 1000


async def test_a_url_that_never_answers_is_given_up(receiver: Receiver) -> None:
    receiver.status = 500
    await webhook(receiver.url).call(an_end(age_s=4 * 86_400), 50)
    assert len(receiver.calls) == 1


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", f"{SECRET}!", SECRET[6:]])
def test_a_bad_secret_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        webhook("http://127.0.0.1:1", secret)
    assert len(secret) < 8 or secret not in str(caught.value)


def test_no_url_means_no_webhook() -> None:
    assert Webhook.of(ControlSettings()) is None
