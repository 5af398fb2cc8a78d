"""The benchmark, whole, on a tiny model: its figures mean nothing, but it runs."""

from pathlib import Path

import pytest
import tiny
from rich.progress import Progress

from ops.bench.compare.report import write_results
from ops.bench.compare.run import Bench


@pytest.mark.timeout(300)  # three of the processes that it starts import torch
def test_the_benchmark_runs_from_nothing_to_its_files(tmp_path: Path) -> None:
    # 128 words are some 600 tokens of the byte-level tokenizer.
    model = tiny.save_tiny_model(tmp_path / "tiny", max_position_embeddings=2048)
    with Progress(disable=True) as bar:
        results = Bench(model, [2], tmp_path, bar).run(1)
    (repeat,) = results.repeats
    assert [(s.kind, r.answered, r.errors) for s, r in repeat.lorikeet] == [
        ("base", 4, ()),
        ("adapters", 4, ()),
    ]
    assert all(report.output_tokens == 4 * 128 for _, report in repeat.lorikeet)
    assert repeat.peft[2] > 0
    assert all(path.stat().st_size for path in write_results(results, tmp_path / "results"))
