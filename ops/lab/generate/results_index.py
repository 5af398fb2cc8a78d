"""Generates the index page of ops/bench/results, with one line per result.

The command is `python -m ops.lab.generate.results_index`.
"""

import tomllib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

FOLDER = Path(__file__).parents[2] / "bench" / "results"
PAGE = FOLDER / "README.md"
COMPARISON = "comparison"
"""Kind of the results that `make bench` writes. Earlier file names contained no kind."""
MEASUREMENTS: dict[str, str] = tomllib.loads((FOLDER / "measurements.toml").read_text())
"""Descriptions of all kinds of results, in the order of the page."""
HEADLINES = {
    "steps": 2,
    "parts": -1,
    "lora": -1,
    "int8-quality": 5,
    "context": -1,
    "registered": -1,
}
"""For each kind of result, the index of the finding that the page quotes.

For kinds that aren't listed here, the page quotes the first finding.
"""
EXTENSIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512_BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""For each CPU flag, the name of the extension that it stands for.

These extensions speed up matrix products. The fastest comes first.
"""
_HEAD = """# Results of the benchmarks

The newest result of each measurement, and the results that a page of this repository cites by name.
If a measurement needs a model, it is SmolLM2-135M in bfloat16. A file is named after its date,
commit and measurement; it holds every figure with the machine and the versions. Git keeps the
results that were replaced. [Benchmarks](../../docs/benchmarks.md) describes the measurements. Some
have answered their question, and [are gone](../../decisions/0188-the-laboratory.md).

`python -m ops.lab.generate.results_index` generates this page.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A benchmark result, shown as one line of the page."""

    path: Path
    date: str
    """Date and time in ISO 8601 format."""
    commit: str
    kind: str
    machine: str
    headline: str


def read_result(path: Path) -> Result:
    """Read the result in a JSON file that the benchmarks wrote."""
    content = orjson.loads(path.read_bytes())
    machine, says = content["machine"], content.get("says")
    kind = path.stem[len("YYYY-MM-DD-") + len(machine["commit"]) :].lstrip("-") or COMPARISON
    return Result(
        path=path,
        date=content["date"],
        commit=machine["commit"],
        kind=kind,
        machine=_machine_text(machine),
        headline=says[HEADLINES.get(kind, 0)] if says else _comparison(content),
    )


def _machine_text(machine: dict[str, Any]) -> str:
    cpu = machine["cpu"].replace("(R)", "").removesuffix(" Processor")
    extension = next(EXTENSIONS[flag] for flag in EXTENSIONS if flag in machine["cpu_flags"])
    return f"{machine['cores']} cores of {cpu}, {extension}"


def _comparison(content: dict[str, Any]) -> str:
    row = max(content["summary"], key=_rank)
    scenario, speed = row["scenario"], row["tokens_per_s"]["median"]
    return f"{scenario['kind']}, {scenario['clients']} clients: {speed:.0f} tokens/s"


def _rank(row: dict[str, Any]) -> tuple[bool, int]:
    return row["scenario"]["kind"] == "adapters", row["scenario"]["clients"]


def results(folder: Path = FOLDER) -> list[Result]:
    """Return every result in `folder`, sorted by kind, machine and date."""
    kinds = list(MEASUREMENTS)
    found = [read_result(path) for path in folder.glob("*.json")]
    return sorted(found, key=lambda r: (kinds.index(r.kind), r.machine, r.date))


def page(folder: Path = FOLDER) -> str:
    """Return the page as Markdown."""
    sections = groupby(results(folder), key=lambda result: result.kind)
    return _HEAD + "".join(_section(kind, list(found)) for kind, found in sections)


def _section(kind: str, found: list[Result]) -> str:
    lines = "\n".join(_line(result) for result in found)
    return f"\n## {kind}: {MEASUREMENTS[kind]}\n\n{lines}\n"


def _line(result: Result) -> str:
    plot = result.path.with_suffix(".png")
    links = f"[{result.date[:10]} {result.commit}]({result.path.name})"
    links += f" ([plot]({plot.name}))" if plot.exists() else ""
    return f"* {links}, {result.machine}: {result.headline}"


if __name__ == "__main__":
    PAGE.write_text(page())
