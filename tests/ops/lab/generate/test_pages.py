"""Generated pages and pictures are current, and the index of results reads its files."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import pytest

from ops.lab.generate import (
    architecture_picture,
    bounds_table,
    gpu_sizes,
    helm_schema,
    results_index,
    settings_table,
)
from ops.lab.generate.conformance import page as conformance
from ops.lab.generate.models import page as models
from ops.lab.generate.models.outcome import read_outcomes
from ops.lab.generate.models.vllm import read_stored
from ops.lab.generate.results_index import FOLDER, page, read_result, results

ROOT = Path(__file__).parents[4]
CITING = [
    *ROOT.glob("*.md"),
    *(ROOT / "ops" / "docs").glob("*.md"),
    *(ROOT / "ops" / "decisions").glob("*.md"),
]
MACHINE = {"cpu": "AMD EPYC", "cores": 2, "cpu_flags": ["avx2"], "commit": "abc-dirty"}


def drawn_architecture() -> str:
    source = architecture_picture.SOURCE.read_text()
    return architecture_picture.draw(architecture_picture.read_drawing(source))


@pytest.mark.parametrize(
    ("command", "file", "generate"),
    [
        ("architecture_picture", architecture_picture.PICTURE, drawn_architecture),
        ("bounds_table", bounds_table.PAGE, bounds_table.page),
        ("conformance", conformance.PAGE, conformance.page),
        ("gpu_sizes", gpu_sizes.PAGE, lambda: gpu_sizes.with_tables(gpu_sizes.PAGE.read_text())),
        ("helm_schema", helm_schema.SCHEMA, helm_schema.schema),
        ("models", models.PAGE, lambda: models.page(read_outcomes(), read_stored())),
        ("results_index", results_index.PAGE, results_index.page),
        ("settings_table", settings_table.PAGE, settings_table.page),
    ],
)
def test_a_generated_file_is_current(command: str, file: Path, generate: Callable[[], str]) -> None:
    assert file.read_text() == generate(), f"run `python -m ops.lab.generate.{command}`"


def test_the_architecture_picture_shows_every_text_and_its_folders_exist() -> None:
    drawing = architecture_picture.read_drawing(architecture_picture.SOURCE.read_text())
    picture = ET.fromstring(architecture_picture.PICTURE.read_text())
    shown = {element.text for element in picture.iter() if element.text}
    for box in drawing.boxes:
        assert {box.title, *(text for _, text in box.rows)} <= shown
        assert [each for each, _ in box.rows if not (ROOT / box.folder / each).exists()] == []
    assert {arrow.label for arrow in drawing.arrows} <= shown


def test_a_result_is_the_newest_of_its_kind_or_cited_by_name() -> None:
    cited = "".join(page.read_text() for page in CITING)
    of_kind = [list(group) for _, group in groupby(results(), key=lambda result: result.kind)]
    newest = {max(group, key=lambda result: result.date).path for group in of_kind}
    replaced = [result.path.name for result in results() if result.path not in newest]
    assert [name for name in replaced if name not in cited] == []
    plots = FOLDER.glob("*.png")
    assert [plot.name for plot in plots if not plot.with_suffix(".json").exists()] == []


def write(folder: Path, name: str, **content: Any) -> Path:
    path = folder / name
    path.write_bytes(orjson.dumps({"date": "2026-11-26T10:00:00", "machine": MACHINE, **content}))
    return path


def test_a_finding_is_read_with_its_kind_machine_and_headline_and_its_plot_linked(
    tmp_path: Path,
) -> None:
    said = ["C = 1: base 1 ms", "C = 8: base 2 ms", "C = 32: base 3 ms"]
    path = write(tmp_path, "2026-11-26-abc-dirty-steps.json", says=said)
    result = read_result(path)
    assert (result.kind, result.commit) == ("steps", "abc-dirty")
    assert result.date == "2026-11-26T10:00:00"
    assert result.machine == "2 cores of AMD EPYC, AVX2"
    assert result.headline == "C = 32: base 3 ms"
    assert "plot" not in page(tmp_path)
    path.with_suffix(".png").touch()
    assert "[plot](2026-11-26-abc-dirty-steps.png)" in page(tmp_path)


def test_a_comparison_is_read_at_most_clients_over_adapters(tmp_path: Path) -> None:
    rows = [
        {"scenario": {"kind": kind, "clients": clients}, "tokens_per_s": {"median": speed}}
        for kind, clients, speed in (
            ("adapters", 1, 60),
            ("adapters", 32, 457.6),
            ("base", 32, 493),
        )
    ]
    result = read_result(write(tmp_path, "2026-11-26-abc-dirty.json", summary=rows))
    assert (result.kind, result.headline) == ("comparison", "adapters, 32 clients: 458 tokens/s")


def test_an_unknown_kind_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "2026-11-26-abc-dirty-other.json", says=["x"])
    with pytest.raises(ValueError, match="other"):
        page(tmp_path)
