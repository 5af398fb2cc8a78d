"""From measured figures to the summary, the table, the JSON file and the plot."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ops.bench.floor import Floor
from ops.bench.load import Load, LoadReport
from ops.bench.machine import Machine, this_machine
from ops.bench.percentiles import percentiles
from ops.bench.queue import QueueReport
from ops.bench.report import queue_line, table, write_results
from ops.bench.results import Repeat, Results, Scenario, summarise

BASE = Scenario(kind="base", clients=8)
ADAPTERS = Scenario(kind="adapters", clients=8)


def report(tokens_per_s: float, errors: tuple[str, ...] = ()) -> LoadReport:
    return LoadReport(
        load=Load(url="http://127.0.0.1/v1", models=("a0",), clients=8, requests=16),
        answered=16 - len(errors),
        errors=errors,
        output_tokens=2048,
        seconds=2048 / tokens_per_s,
        tokens_per_s=tokens_per_s,
        ttft_s=percentiles([1.5]),
        itl_s=percentiles([0.05]),
    )


def repeat(base: float, adapters: float, peft: float, errors: tuple[str, ...] = ()) -> Repeat:
    return Repeat(
        peft={8: peft}, lorikeet=((BASE, report(base)), (ADAPTERS, report(adapters, errors)))
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
        floor=(Floor(batch=8, ms=20.0, tokens_per_s=400.0),),
        repeats=repeats,
    )  # fmt: skip


THREE = results(
    repeat(100, 90, 30), repeat(110, 80, 40, errors=("HTTP 503",)), repeat(120, 100, 20)
)


def test_figures_are_medians_with_their_spread() -> None:
    base, adapters = summarise(THREE)
    assert (base.tokens_per_s.low, base.tokens_per_s.median, base.tokens_per_s.high) == (
        100, 110, 120
    )  # fmt: skip
    assert adapters.tokens_per_s.median == 90
    assert adapters.peft_tokens_per_s is not None
    assert adapters.peft_tokens_per_s.median == 30


def test_a_ratio_is_of_one_round_and_not_of_medians() -> None:
    _, adapters = summarise(results(repeat(1, 90, 30), repeat(1, 80, 20), repeat(1, 100, 50)))
    assert adapters.ratio is not None
    assert (adapters.ratio.low, adapters.ratio.median, adapters.ratio.high) == (2, 3, 4)


def test_the_base_model_is_not_compared_with_peft() -> None:
    base, _ = summarise(THREE)
    assert base.ratio is None
    assert base.peft_tokens_per_s is None


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


def test_the_queue_is_told_in_one_sentence() -> None:
    assert queue_line(THREE) == (
        "queue: enqueue to claim 0.50 ms at p50, 1.50 ms at p99; 3,000 jobs/s, 90 us of Redis a job"
    )


def test_the_files_hold_every_round_and_a_plot(tmp_path: Path) -> None:
    data, plot = write_results(THREE, tmp_path / "results")
    written = json.loads(data.read_bytes())
    assert data.name == "2026-01-02-abc123.json"
    assert [r["peft"] for r in written["repeats"]] == [{"8": 30.0}, {"8": 40.0}, {"8": 20.0}]
    assert written["repeats"][1]["lorikeet"][1][1]["errors"] == ["HTTP 503"]
    assert written["summary"][1]["ratio"]["median"] == 3.0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_machine_says_what_it_is() -> None:
    machine = this_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gib > 0
    assert set(machine.versions) == {"torch", "transformers", "peft"}
