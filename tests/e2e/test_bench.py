"""The whole benchmark on a tiny model, whose figures are meaningless."""

from pathlib import Path

import pytest
import tiny
from rich.progress import Progress

from ops.bench.compare.comparison import Comparison
from ops.bench.compare.output import write_results


@pytest.mark.slow
@pytest.mark.timeout(300)  # three of the started processes import torch
def test_the_benchmark_runs_and_writes_its_files(tmp_path: Path) -> None:
    # 128 words are about 600 tokens of the byte-level tokenizer.
    model = tiny.save_tiny_model(tmp_path / "tiny", max_position_embeddings=2048)
    with Progress(disable=True) as bar:
        results = Comparison(model, [2], tmp_path, bar).run(1)
    (repeat,) = results.repeats
    assert [(s.kind, r.answered, r.errors) for s, r in repeat.lorikeet] == [
        ("base", 4, ()),
        ("adapters", 4, ()),
    ]
    assert all(report.output_tokens == 4 * 128 for _, report in repeat.lorikeet)
    assert repeat.peft[2] > 0
    assert all(path.stat().st_size for path in write_results(results, tmp_path / "results"))
