"""The table, the lines, the JSON file and the plot of a benchmark."""

import json
from io import StringIO
from pathlib import Path

import pytest
from bench_results import THREE, WITH_VLLM, repeat, results
from rich.console import Console

from ops.bench.compare.output import WIDTH, lines, table, write_results


def test_without_vllm_the_table_has_no_vllm() -> None:
    out = StringIO()
    Console(file=out, width=100).print(table(THREE))
    assert "vLLM" not in out.getvalue()


@pytest.mark.parametrize("part", ["8 adapters", "80-100", "3.00", "400", "1.50 s", "50 ms"])
def test_the_table_shows(part: str) -> None:
    out = StringIO()
    Console(file=out, width=80).print(table(THREE))
    assert part in out.getvalue()


def test_one_round_has_no_spread() -> None:
    out = StringIO()
    Console(file=out, width=80).print(table(results(repeat(100, 90, 30))))
    assert "100-100" not in out.getvalue()


def test_the_table_fits_vllm_and_its_spread() -> None:
    rounds = results(repeat(1100, 880, 30, vllm=(150, 110)), repeat(1220, 990, 32, vllm=(250, 88)))
    out = StringIO()
    Console(file=out, width=WIDTH).print(table(rounds))
    assert "vLLM" in out.getvalue()
    assert "8.00-11.25" in out.getvalue()
    assert "…" not in out.getvalue()


def test_the_lines_below_the_table_give_tax_ttft_memory_and_queue() -> None:
    assert lines(WITH_VLLM) == [
        "LoRA tax of 8 adapters at 8 clients: 20 %",
        "TTFT p50 of vLLM, base, 8 clients: 9.00 s, 6.0 x Lorikeet's",
        "TTFT p50 of vLLM, 8 adapters, 8 clients: 12.00 s, 8.0 x Lorikeet's",
        "memory: 17.2 GB/s read by all cores",
        "queue: enqueue to claim 0.50 ms at p50, 1.50 ms at p99; 3,000 jobs/s, "
        "90 us of Redis per job",
    ]


def test_the_files_hold_every_round_and_a_plot(tmp_path: Path) -> None:
    data, plot = write_results(THREE, tmp_path / "results")
    written = json.loads(data.read_bytes())
    assert data.name == "2026-01-02-abc123.json"
    assert [r["peft"] for r in written["repeats"]] == [{"8": 30.0}, {"8": 40.0}, {"8": 20.0}]
    assert written["repeats"][1]["lorikeet"][1][1]["errors"] == ["HTTP 503"]
    assert written["summary"][1]["peft"]["ratio"]["median"] == 3.0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_plot_can_show_vllm(tmp_path: Path) -> None:
    _, plot = write_results(WITH_VLLM, tmp_path)
    assert plot.read_bytes().startswith(b"\x89PNG")
