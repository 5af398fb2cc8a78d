from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import pytest

from ops.lab.generate.results_index import FOLDER, PAGE, page, read_result, results

ROOT = Path(__file__).parents[4]
CITING = [
    *ROOT.glob("*.md"),
    *(ROOT / "ops" / "docs").glob("*.md"),
    *(ROOT / "ops" / "decisions").glob("*.md"),
]
MACHINE = {"cpu": "AMD EPYC", "cores": 2, "cpu_flags": ["avx2"], "commit": "abc-dirty"}


def write(folder: Path, name: str, **content: Any) -> Path:
    path = folder / name
    path.write_bytes(orjson.dumps({"date": "2026-11-26T10:00:00", "machine": MACHINE, **content}))
    return path


def test_the_index_of_results_is_current() -> None:
    assert PAGE.read_text() == page(), "run `python -m ops.lab.generate.results_index`"


def test_a_result_is_the_newest_of_its_kind_or_cited_by_name() -> None:
    cited = "".join(page.read_text() for page in CITING)
    of_kind = [list(group) for _, group in groupby(results(), key=lambda result: result.kind)]
    newest = {max(group, key=lambda result: result.date).path for group in of_kind}
    replaced = [result.path.name for result in results() if result.path not in newest]
    assert [name for name in replaced if name not in cited] == []


def test_every_plot_has_its_result() -> None:
    assert [
        plot.name for plot in FOLDER.glob("*.png") if not plot.with_suffix(".json").exists()
    ] == []


def test_a_finding_is_read_with_its_kind_machine_and_headline(tmp_path: Path) -> None:
    said = ["C = 1: base 1 ms", "C = 8: base 2 ms", "C = 32: base 3 ms"]
    path = write(tmp_path, "2026-11-26-abc-dirty-steps.json", says=said)
    result = read_result(path)
    assert (result.kind, result.commit, result.date) == (
        "steps",
        "abc-dirty",
        "2026-11-26T10:00:00",
    )
    assert result.machine == "2 cores of AMD EPYC, AVX2"
    assert result.headline == "C = 32: base 3 ms"


def test_a_comparison_is_read_at_most_clients_over_adapters(tmp_path: Path) -> None:
    def row(kind: str, clients: int, speed: float) -> dict[str, Any]:
        return {
            "scenario": {"kind": kind, "clients": clients},
            "tokens_per_s": {"median": speed},
        }

    rows = [row("adapters", 1, 60), row("adapters", 32, 457.6), row("base", 32, 493)]
    result = read_result(write(tmp_path, "2026-11-26-abc-dirty.json", summary=rows))
    assert (result.kind, result.headline) == ("comparison", "adapters, 32 clients: 458 tokens/s")
    result = read_result(write(tmp_path, "2026-11-30-abc-dirty-comparison.json", says=["x"]))
    assert (result.kind, result.headline) == ("comparison", "x")


def test_the_page_links_a_plot_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, "2026-11-26-abc-dirty-memory.json", says=["worker: 1 MiB"])
    assert "plot" not in page(tmp_path)
    (tmp_path / "2026-11-26-abc-dirty-memory.png").touch()
    assert "[plot](2026-11-26-abc-dirty-memory.png)" in page(tmp_path)


def test_an_unknown_kind_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "2026-11-26-abc-dirty-other.json", says=["x"])
    with pytest.raises(ValueError, match="other"):
        page(tmp_path)
