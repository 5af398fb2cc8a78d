"""The load generator against a server whose behaviour the model's name selects."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ops.load.distributions import Closed, Length, Open, Popularity, due_times_s
from ops.load.load import Load, OnDone, body_of, send_load
from ops.load.prompts import prompt
from ops.load.report import LoadReport
from ops.load.report import report as report_of

SEPARATORS = "\u2028 \u0085 \x0c"
"""Characters at which Python's splitlines ends a line and SSE doesn't."""


@dataclass
class StandIn:
    """A server that records requests and the highest number in flight."""

    barrier: asyncio.Barrier
    """`patient` models answer when this many requests are in flight."""
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.heads.append(head)
        self.bodies.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if body["model"] == "patient":
            await self.barrier.wait()
        await self._answer(body, writer)
        self.in_flight -= 1
        writer.close()
        await writer.wait_closed()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if body["model"] == "refuses":
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\n\r\nfull")
            return
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        if not body["stream"]:
            usage = {"prompt_tokens": 3, "completion_tokens": body["max_tokens"]}
            writer.write(json.dumps({"choices": [{"text": "all"}], "usage": usage}).encode())
            return
        writer.write(b": hello\n\n")
        if body["model"] == "breaks":
            send(writer, {"error": {"message": "the worker is gone"}})
            return
        tokens = body["max_tokens"] - (body["model"] == "short")
        for _ in range(tokens):
            send(writer, {"choices": [{"index": 0, "text": SEPARATORS}]})
            await writer.drain()
        send(writer, {"choices": [], "usage": {"completion_tokens": tokens}})
        writer.write(b"data: [DONE]\n\n")


def send(writer: asyncio.StreamWriter, chunk: dict[str, Any]) -> None:
    writer.write(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n")


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    stand_in = StandIn(asyncio.Barrier(3))
    listening = await asyncio.start_server(stand_in.handle, "127.0.0.1", 0)
    async with listening:
        stand_in.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        yield stand_in


def load(server: StandIn, *models: str, clients: int = 3, requests: int = 9) -> Load:
    return Load(
        url=server.url,
        models=models,
        arrivals=Closed(clients=clients),
        requests=requests,
        output_tokens=Length(5, 5),
    )


async def run_load(wanted: Load, on_done: OnDone = lambda: None) -> LoadReport:
    return report_of(wanted, await send_load(wanted, on_done))


async def test_every_request_is_sent_and_answered_once_and_its_times_add_up(
    server: StandIn,
) -> None:
    report = await run_load(load(server, "good"))
    assert len(server.bodies) == report.answered == 9
    assert (report.output_tokens, report.errors) == (45, ())
    assert 0 < report.ttft_s.p50 <= report.ttft_s.p99 <= report.seconds
    assert 0 <= report.itl_s.p50 <= report.itl_s.p95 <= report.itl_s.p99
    assert report.tokens_per_s == report.output_tokens / report.seconds


async def test_models_are_taken_in_turn(server: StandIn) -> None:
    await run_load(load(server, "a", "b", "c", clients=1))
    assert [body["model"] for body in server.bodies] == ["a", "b", "c"] * 3


async def test_each_client_has_exactly_one_request_in_flight(server: StandIn) -> None:
    await run_load(load(server, "patient", clients=3, requests=30))
    assert server.most_in_flight == 3


async def test_requests_ask_for_an_exact_number_of_greedy_tokens(server: StandIn) -> None:
    await send_load(load(server, "good", requests=1), api_key="secret")
    assert b"authorization: bearer secret" in server.heads[0].lower()
    assert server.bodies == [
        {
            "model": "good",
            "prompt": prompt("", 0, 128),
            "max_tokens": 5,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("refuses", "HTTP 429: full"),
        ("breaks", "the worker is gone"),
        ("short", "5 tokens requested, 4 received"),
    ],
)
async def test_a_failed_request_is_counted_and_its_tokens_are_not(
    server: StandIn, model: str, reason: str
) -> None:
    calls: list[None] = []
    asked = load(server, "good", model, clients=1, requests=4)
    report = await run_load(asked, lambda: calls.append(None))
    assert (len(report.errors), len(calls)) == (2, 4)
    assert all(reason in error for error in report.errors)
    assert (report.answered, report.output_tokens) == (2, 10)


async def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    nowhere = load(StandIn(asyncio.Barrier(1), "http://127.0.0.1:1/v1"), "good", requests=4)
    report = await run_load(nowhere)
    assert len(report.errors) == 4
    assert report.tokens_per_s == 0


async def test_an_open_loop_sends_while_requests_are_unanswered(server: StandIn) -> None:
    # In a closed loop of fewer than 3 clients the barrier would never open.
    open_loop = replace(load(server, "patient", requests=3), arrivals=Open(rate=1000.0))
    report = await run_load(open_loop)
    assert (report.answered, server.most_in_flight) == (3, 3)


async def test_an_open_loop_keeps_to_its_times(server: StandIn) -> None:
    open_loop = replace(load(server, "good", requests=20), arrivals=Open(rate=100.0))
    answers = await send_load(open_loop)
    sent = [answer.sent_s - answers[0].sent_s for answer in answers]
    due = due_times_s(Open(rate=100.0), 20, "")
    assert sent == pytest.approx([time - due[0] for time in due])


async def test_whole_answers_are_timed_to_their_end(server: StandIn) -> None:
    report = await run_load(replace(load(server, "good"), stream=False))
    assert (report.answered, report.output_tokens, report.input_tokens) == (9, 45, 27)
    assert 0 < report.e2e_s.p50 <= report.seconds


def test_each_request_has_a_length_a_model_and_words_beside_the_shared_ones(
    server: StandIn,
) -> None:
    ranges = {"input_words": Length(2, 9), "output_tokens": Length(1, 4), "shared_words": 20}
    zipf = {"popularity": Popularity.ZIPF, "zipf_s": 3.0}
    asked = replace(load(server, "a", "b"), **ranges, **zipf)
    bodies = [body_of(asked, number) for number in range(50)]
    prompts = [body["prompt"].split() for body in bodies]
    assert {len(words) for words in prompts} == set(range(22, 30))
    assert {body["max_tokens"] for body in bodies} == {1, 2, 3, 4}
    assert len({tuple(words[:20]) for words in prompts}) == 1
    assert len({tuple(words[20:]) for words in prompts}) == 50
    assert [body["model"] for body in bodies].count("a") > 30


def test_a_server_gets_the_further_fields_of_the_requests_model(server: StandIn) -> None:
    adapter = [{"id": 0, "scale": 1.0}]
    further = replace(load(server, "a0", "base"), fields={"a0": {"lora": adapter}})
    assert [body_of(further, number).get("lora") for number in range(2)] == [adapter, None]
