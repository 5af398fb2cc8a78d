"""Traces of requests that real front ends and workers send to a collector."""

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_processes import is_ready
from child_processes import child_processes
from otlp_collector import Collector, Received, collecting
from servers import Server, lorikeet_up, start_lorikeet, wait_for
from simulated_workers import BASE, NAME, worker_process

from ops.local.ports import free_port

pytestmark = pytest.mark.slow

SERVER, CONSUMER = 2, 5
"""Kinds of spans."""
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNSAMPLED = "5cf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SECRET = "The moon is made of pecorino."
CHAT = {"model": NAME, "messages": [{"role": "user", "content": SECRET}], "seed": 1}
QUICK = {"OTEL_SDK_DISABLED": "false", "OTEL_BSP_SCHEDULE_DELAY": "100"}
END_S = 60


@pytest.fixture(autouse=True)
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as one:
        yield one


def traced_up(folder: Path, collector: Collector, *flags: str) -> AbstractContextManager[Server]:
    """Run a pool whose processes send their last spans when it ends."""
    engine = ("--engine", "simulated", "--otlp-endpoint", collector.url)
    return lorikeet_up(folder, NAME, *engine, *flags)


def only(spans: list[Received]) -> Received:
    (span,) = spans
    return span


def test_each_request_is_one_trace_from_its_client_to_the_engine(
    collector: Collector, tmp_path: Path
) -> None:
    asked = {**CHAT, "max_tokens": 8, "ignore_eos": True, "temperature": 0.5}
    text = {"model": NAME, "prompt": SECRET, "max_tokens": 2, "ignore_eos": True, "n": 2}
    unsampled = {"traceparent": f"00-{UNSAMPLED}-{PARENT}-00"}
    with traced_up(tmp_path, collector, "--simulated-step-ms", "5") as server:

        def post(path: str, headers: dict[str, str], **body: Any) -> httpx.Response:
            return httpx.post(f"{server.api_url}/{path}", json=body, headers=headers, timeout=30)

        reply = post("chat/completions", TRACEPARENT, **asked)
        for traceparent in ({}, {"traceparent": "00-nonsense"}):
            assert post("completions", traceparent, **text).status_code == 200
        post("completions", {}, **{**text, "model": SECRET})
        assert post("chat/completions", unsampled, **CHAT, max_tokens=2).status_code == 200
    check_trace_of_chat([span for span in collector.spans if span.trace == TRACE], reply)
    check_new_traces(collector)
    assert len({span.trace for span in collector.spans}) == 1 + 3  # none of what isn't sampled
    sent = b"".join(collector.bodies)
    assert SECRET.encode() not in sent
    assert reply.json()["choices"][0]["message"]["content"][:20].encode() not in sent


def check_trace_of_chat(spans: list[Received], reply: httpx.Response) -> None:
    """Check the trace of a chat whose client has sent `TRACEPARENT`."""
    answer = reply.json()
    admit, request, compute, queue = sorted(spans, key=lambda span: span.name)
    names = [span.name for span in (request, queue, admit, compute)]
    assert names == ["chat simulated", "queue", "admit", "compute"]
    usage = {
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    about = {
        "gen_ai.request.model": "simulated",
        "lorikeet.job.id": reply.headers["x-lorikeet-job"],
        "lorikeet.tenant": "default",
        "lorikeet.adapter.version": BASE,
    }
    assert (request.parent, request.kind) == (PARENT, SERVER)
    assert request.attributes == {
        **about,
        **usage,
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lorikeet",
        "gen_ai.request.max_tokens": 8,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "simulated",
        "gen_ai.response.id": answer["id"],
        "gen_ai.response.finish_reasons": ["length"],
    }
    for span in (queue, admit, compute):
        assert (span.parent, span.kind) == (request.id, CONSUMER)
        assert span.attributes.items() >= {**about, "lorikeet.try": 1}.items()
        assert span.resource["service.name"] == "lorikeet-worker"
    assert request.resource["service.name"] == "lorikeet-api"
    assert compute.attributes.items() >= {**usage, "lorikeet.state": "done"}.items()
    assert queue.start_ns <= queue.end_ns == admit.start_ns <= admit.end_ns <= compute.start_ns
    first = compute.events["first_token"]
    assert compute.start_ns < first["at_ns"] < compute.end_ns
    assert 0 < first["lorikeet.seconds_since_enqueue"] < 30


def check_new_traces(collector: Collector) -> None:
    """Check the traces of completions, of which one is refused, without a valid header."""
    one, two = collector.named("text_completion simulated")
    refused = only(collector.named("POST /v1/completions"))
    assert (one.parent, two.parent, refused.parent) == ("", "", "")
    assert one.attributes["gen_ai.request.choice.count"] == 2
    assert one.attributes["gen_ai.response.finish_reasons"] == ["length", "length"]
    assert (refused.attributes["error.type"], refused.status) == ("model_not_found", 0)
    for request in (one, two):
        children = [span for span in collector.spans if span.parent == request.id]
        assert sorted(span.name for span in children) == ["admit", "compute", "queue"]


def test_a_job_of_a_killed_worker_has_two_tries_in_its_trace(
    collector: Collector, tmp_path: Path
) -> None:
    body = {**CHAT, "max_tokens": 200, "ignore_eos": True, "stream": True}
    flags = ("--lease-ms", "900", "--simulated-step-ms", "20")
    with traced_up(tmp_path, collector, *flags) as server:
        url = f"{server.api_url}/chat/completions"
        with httpx.stream("POST", url, json=body, headers=TRACEPARENT, timeout=60) as reply:
            lines = reply.iter_lines()
            next(line for line in lines if '"content":"' in line)
            collector.wait_for(lambda: collector.named("admit"))
            server.children("worker")[0].kill()  # and another one starts
            assert "data: [DONE]" in list(lines)
    request = only(collector.named("chat simulated"))
    assert request.attributes["gen_ai.request.stream"] is True
    assert request.attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert request.attributes["gen_ai.usage.output_tokens"] == 200
    assert 0 < request.attributes["gen_ai.response.time_to_first_chunk"] < 30
    assert {span.trace for span in collector.spans} == {TRACE}
    tries = [(s.name, s.attributes["lorikeet.try"]) for s in collector.spans if s != request]
    assert sorted(tries) == [
        *(("admit", 1), ("admit", 2), ("compute", 2)),
        *(("queue", 1), ("queue", 2)),
    ]
    assert {span.parent for span in collector.spans if span != request} == {request.id}
    waits = {span.attributes["lorikeet.try"]: span for span in collector.named("queue")}
    admitted = {span.attributes["lorikeet.try"]: span for span in collector.named("admit")}
    assert admitted[1].end_ns < waits[2].start_ns <= waits[2].end_ns == admitted[2].start_ns
    workers = {span.attributes["lorikeet.worker.id"] for span in admitted.values()}
    assert len(workers) == 2


def test_a_collector_that_is_away_changes_no_answer_and_delays_no_end(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    away, log, port = "http://127.0.0.1:9", tmp_path / "api.log", free_port()
    url, flags = f"http://127.0.0.1:{port}", ["--redis-url", redis_url, "--pool", pool]
    api = start_lorikeet(["api", "--port", str(port), "--otlp-endpoint", away, *flags], log)
    try:
        with worker_process(redis_url, pool, simulated_step_ms=0, otlp_endpoint=away) as worker:
            wait_for(lambda: is_ready(url), log.read_text, api)
            for _ in range(20):
                body = {**CHAT, "max_tokens": 2}
                reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
                assert reply.status_code == 200
            wait_for(lambda: "traces_not_exported" in log.read_text(), log.read_text, api)
            for process in (worker, api):
                process.terminate()
                assert process.wait(END_S) == 0
    finally:
        api.kill()
    (warning,) = [line for line in log.read_text().splitlines() if "traces_not_exported" in line]
    assert json.loads(warning)["level"] == "warning"
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("command", ["api", "worker"])
def test_without_opentelemetry_a_process_refuses_to_start(command: str, redis_url: str) -> None:
    words = ["lorikeet", command, "--redis-url", redis_url, "--otlp-endpoint", "http://127.0.0.1:9"]
    words += ["--model", "simulated", "--engine", "simulated"] if command == "worker" else []
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; "
        f"sys.argv = {words!r}; from ops.cli import main; main()"
    )
    with child_processes() as start:
        process = start([sys.executable, "-c", code], stdout=-1, stderr=-1)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "--otlp-endpoint" in errors
    assert "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http" in errors
    assert "Traceback" not in errors
