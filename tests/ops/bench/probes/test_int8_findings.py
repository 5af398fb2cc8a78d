"""Summaries of int8's speed, memory and demo, and the text and rounding of its quality."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from ops.bench.probes.int8.demo_tasks import TaskScore, tasks_finding
from ops.bench.probes.int8.engines import Engine
from ops.bench.probes.int8.finding import int8_finding, level_finding
from ops.bench.probes.int8.loads import Sizes
from ops.bench.probes.int8.q8_0 import rounded
from ops.bench.probes.int8.rounds import Round
from ops.bench.probes.int8.text import prose

MIB = 1 << 20
SIZES = Sizes(rounds=6)


def rounds(alone: Mapping[str, float], *, mixed_llama_in: int) -> list[Round]:
    """Return six rounds with the same speeds, of which the first measure llama.cpp's mixed load."""
    mixed = {"bfloat16": 400.0, "int8": 500.0}
    engines = {
        "bfloat16": Engine(ms={"step": 20.0}, weight_bytes=256 * MIB, rss_bytes=700 * MIB),
        "int8": Engine(ms={"step": 10.0}, weight_bytes=160 * MIB, rss_bytes=600 * MIB),
    }
    return [
        Round(
            alone=alone,
            mixed=mixed | ({"llama.cpp Q8_0": 50.0} if number < mixed_llama_in else {}),
            worker_rss_bytes={"bfloat16": 900 * MIB, "int8": 800 * MIB},
            engines=engines,
        )
        for number in range(6)
    ]


def test_int8_is_compared_with_bfloat16_and_with_llama_cpp() -> None:
    alone = {"bfloat16": 50.0, "int8": 80.0, "llama.cpp Q8_0": 100.0}
    says = int8_finding(rounds(alone, mixed_llama_in=1), SIZES, 8).says
    assert says == (
        "base, 1 client: int8 80.0 tokens/s, bfloat16 50.0; "
        "ratio 1.600, 95 % interval 1.600 to 1.600 excludes 1",
        "base, 1 client: int8 80.0 tokens/s, llama.cpp Q8_0 100.0; "
        "ratio 0.800, 95 % interval 0.800 to 0.800 excludes 1",
        "8 adapters, 32 clients: int8 500.0 tokens/s, bfloat16 400.0; "
        "ratio 1.250, 95 % interval 1.250 to 1.250 excludes 1",
        "8 adapters, 32 clients: int8 500.0 tokens/s, llama.cpp Q8_0 50.0; "
        "ratio 10.000, 10.000 to 10.000 in 1 rounds",
        "step: int8 10.0 ms, bfloat16 20.0; ratio 2.000, 95 % interval 2.000 to 2.000 excludes 1",
        "weights: bfloat16 256 MiB, int8 160 MiB",
        "resident memory of the engine's process: bfloat16 700 MiB, int8 600 MiB",
        "resident memory of the worker after its loads: bfloat16 900 MiB, int8 800 MiB",
    )


def test_the_kernels_of_a_level_are_compared_by_steps() -> None:
    found = [one.engines for one in rounds({"bfloat16": 1.0, "int8": 1.0}, mixed_llama_in=0)]
    finding = level_finding(found, "avx2")
    assert finding.name == "int8-avx2"
    assert finding.says == (
        "step: int8 10.0 ms, bfloat16 20.0; ratio 2.000, 95 % interval 2.000 to 2.000 excludes 1",
    )
    assert finding.chart.series == {"step": [(number, 2.0) for number in range(1, 7)]}


def test_tasks_are_compared_in_points() -> None:
    score = TaskScore(
        task="sql", num_examples=200, num_right={"bfloat16": 173, "int8": 170}, num_equal=190
    )
    assert tasks_finding([score]).says == (
        "sql, 200 examples: bfloat16 86.5 %, int8 85.0 %, -1.5 points; 190 answers are equal",
    )


def test_the_text_has_neither_code_nor_tables_nor_headings(tmp_path: Path) -> None:
    sentence = "The worker reads its adapters at the start, and checks each of their files."
    page = (
        f"# Title\n\n{sentence}\n{sentence}\n\n```bash\n{sentence}\n```\n| {sentence} |\n\nShort.\n"
    )
    (tmp_path / "a.md").write_text(page)
    (tmp_path / "b.md").write_text(sentence)
    assert prose(tmp_path) == f"{sentence} {sentence}\n\n{sentence}"


def test_rounding_has_a_scale_for_32_numbers() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 70)
    values[:, 32:64] *= 1000
    for group in torch.split(values, 32, dim=-1):
        error = (rounded(group) - group).abs().amax(-1)
        # Half a step, and the error of a scale in float16.
        assert torch.all(error <= group.abs().amax(-1) / 127 * (0.5 + 127 * 2**-11))
    assert torch.equal(
        rounded(values), torch.cat([rounded(group) for group in torch.split(values, 32, -1)], -1)
    )
    assert not rounded(torch.zeros(2, 40)).any()


def test_the_largest_magnitude_is_exact_up_to_its_scale() -> None:
    assert rounded(torch.tensor([127.0, -64.4, 0.4])).tolist() == pytest.approx([127.0, -64.0, 0.0])
