"""Builds results of `make bench` from a few figures."""

from ops.bench.compare.floor import Floor
from ops.bench.compare.queue_latency import QueueReport
from ops.bench.compare.results import Repeat, Results, Scenario
from ops.bench.load.arrivals import Closed
from ops.bench.load.load import Load
from ops.bench.load.percentiles import percentiles
from ops.bench.load.report import LoadReport
from ops.bench.machine import Machine

BASE = Scenario(kind="base", clients=8)
ADAPTERS = Scenario(kind="adapters", clients=8)


def report(tokens_per_s: float, errors: tuple[str, ...] = (), ttft_s: float = 1.5) -> LoadReport:
    return LoadReport(
        load=Load(
            url="http://127.0.0.1/v1", models=("a0",), arrivals=Closed(clients=8), requests=16
        ),
        answered=16 - len(errors),
        errors=errors,
        input_tokens=2048,
        output_tokens=2048,
        seconds=2048 / tokens_per_s,
        tokens_per_s=tokens_per_s,
        requests_per_s=tokens_per_s / 128,
        ttft_s=percentiles([ttft_s]),
        itl_s=percentiles([0.05]),
        e2e_s=percentiles([8.0]),
    )


def repeat(
    base: float,
    adapters: float,
    peft: float,
    errors: tuple[str, ...] = (),
    vllm: tuple[float, float] | None = None,
) -> Repeat:
    theirs = (
        ((BASE, report(vllm[0], ttft_s=9)), (ADAPTERS, report(vllm[1], ttft_s=12))) if vllm else ()
    )
    return Repeat(
        peft={8: peft},
        lorikeet=((BASE, report(base)), (ADAPTERS, report(adapters, errors))),
        vllm=theirs,
    )


def results(*repeats: Repeat) -> Results:
    return Results(
        date="2026-01-02T03:04:05+00:00",
        machine=Machine(
            cpu="Fast CPU", cores=2, cpu_flags=(), memory_gib=23.5, python="3.11.9",
            versions={"torch": "2.13.0"}, commit="abc123",
        ),
        model="tiny",
        queue=QueueReport(
            claim_p50_ms=0.5, claim_p99_ms=1.5, jobs_per_s=3000.0, redis_us_per_job=90.0
        ),
        bandwidth_bytes_per_s=17.25e9,
        floor=(Floor(batch=8, ms=20.0, tokens_per_s=400.0),),
        repeats=repeats,
    )  # fmt: skip


THREE = results(
    repeat(100, 90, 30), repeat(110, 80, 40, errors=("HTTP 503",)), repeat(120, 100, 20)
)
WITH_VLLM = results(repeat(100, 80, 30, vllm=(50, 10)))
