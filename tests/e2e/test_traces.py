"""Traces of requests that real front ends and workers send to a collector."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from child_processes import child_processes
from otlp_collector import Collector, Received, collecting
from servers import Process, start_lorikeet, wait_for
from simulated_workers import BASE

pytestmark = pytest.mark.slow

SERVER, CONSUMER = 2, 5
"""Kinds of spans."""
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNSAMPLED = "5cf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
SECRET = "The moon is made of pecorino."
CHAT = {"model": "simulated", "messages": [{"role": "user", "content": SECRET}], "seed": 1}
QUIET = {"OTEL_SDK_DISABLED": "false", "OTEL_BSP_SCHEDULE_DELAY": "100"}
END_S = 20


class Pool:
    """A front end and workers of one test, as processes."""

    def __init__(self, redis_url: str, pool: str, folder: Path) -> None:
        self.folder = folder
        self._flags = ["--redis-url", redis_url, "--pool", pool]
        self._processes: list[Process] = []

    def start(self, *words: str, log: str, **variables: str) -> Process:
        command = [*words, *self._flags]
        process = start_lorikeet(command, self.folder / log, **QUIET, **variables)
        self._processes.append(process)
        return process

    def start_api(self, *flags: str) -> str:
        """Start a front end, and return its URL."""
        self.api = self.start("api", "--port", "0", *flags, log="api.log")
        log = self.folder / "api.log"

        def found() -> "re.Match[str] | None":
            return re.search(r'"url": "(http[^"]+)"', log.read_text())

        wait_for(lambda: found() is not None, log.read_text, self.api)
        match = found()
        assert match is not None
        return match[1]

    def start_worker(self, *flags: str, log: str = "worker.log") -> Process:
        words = ["worker", "simulated", "--engine", "simulated", *flags]
        process = self.start(*words, log=log)
        text = (self.folder / log).read_text
        wait_for(lambda: "worker_ready" in text(), text, process)
        return process

    def stop(self) -> None:
        """Stop all processes that run; they must end with status 0."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
                assert process.wait(END_S) == 0

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as one:
        yield one


@pytest.fixture
def processes(redis_url: str, pool: str, tmp_path: Path) -> Iterator[Pool]:
    processes = Pool(redis_url, pool, tmp_path)
    yield processes
    processes.kill()


def only(spans: list[Received]) -> Received:
    (span,) = spans
    return span


def test_each_request_is_one_trace_from_its_client_to_the_engine(
    collector: Collector, processes: Pool
) -> None:
    flags = ["--otlp-endpoint", collector.url]
    url = processes.start_api(*flags)
    processes.start_worker(*flags, "--simulated-step-ms", "5")

    def post(path: str, headers: dict[str, str], **body: Any) -> httpx.Response:
        return httpx.post(f"{url}/v1/{path}", json=body, headers=headers, timeout=30)

    asked = {**CHAT, "max_tokens": 8, "ignore_eos": True, "temperature": 0.5}
    reply = post("chat/completions", TRACEPARENT, **asked)
    text = {"model": "simulated", "prompt": SECRET, "max_tokens": 2, "ignore_eos": True, "n": 2}
    for traceparent in ({}, {"traceparent": "00-nonsense"}):
        assert post("completions", traceparent, **text).status_code == 200
    post("completions", {}, **{**text, "model": SECRET})
    unsampled = {"traceparent": f"00-{UNSAMPLED}-{PARENT}-00"}
    assert post("chat/completions", unsampled, **CHAT, max_tokens=2).status_code == 200
    processes.stop()
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
    collector: Collector, processes: Pool
) -> None:
    flags = ["--otlp-endpoint", collector.url]
    lease = ["--lease-ms", "900", "--simulated-step-ms", "20"]
    url = processes.start_api(*flags)
    first = processes.start_worker(*flags, *lease, log="first.log")
    body = {**CHAT, "max_tokens": 200, "ignore_eos": True, "stream": True}
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=body, headers=TRACEPARENT, timeout=60
    ) as reply:
        lines = reply.iter_lines()
        next(line for line in lines if '"content":"' in line)
        collector.wait_for(lambda: collector.named("admit"))
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        processes.start_worker(*flags, *lease, log="second.log")
        assert "data: [DONE]" in list(lines)
    processes.stop()
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


def test_a_collector_that_is_away_changes_no_answer_and_delays_no_end(processes: Pool) -> None:
    flags = ["--otlp-endpoint", "http://127.0.0.1:9"]
    url = processes.start_api(*flags)
    processes.start_worker(*flags, "--simulated-step-ms", "0")
    for _ in range(20):
        body = {**CHAT, "max_tokens": 2}
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
        assert reply.status_code == 200
    log = processes.folder / "api.log"
    wait_for(lambda: "traces_not_exported" in log.read_text(), log.read_text, processes.api)
    processes.stop()
    warnings = [line for line in log.read_text().splitlines() if "traces_not_exported" in line]
    assert len(warnings) == 1
    assert json.loads(warnings[0])["level"] == "warning"
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
