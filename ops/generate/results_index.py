"""Generates the index page of ops/bench/results, with one line per result.

The command is `python -m ops.generate.results_index`.
"""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

FOLDER = Path(__file__).parents[1] / "bench" / "results"
PAGE = FOLDER / "README.md"
COMPARISON = "comparison"
"""Kind of the results that `make bench` writes. Their file names contain no kind."""
MEASUREMENTS = {
    COMPARISON: "Lorikeet and its peers on the same load",
    "vllm-engine": "workers with the vLLM engine against `vllm serve` alone",
    "steps": "decode steps against the GEMM floor",
    "parts": "time of each part of a decode step",
    "operations": "operations and copies of a decode step, counted on a CPU",
    "prebuilt": "a wheel's compiled CPU kernels against g++'s",
    "lora": "cost of distinct adapters of rank 16 in a decode step",
    "int8": "int8 against bfloat16 and llama.cpp",
    "int8-avx512-vnni": "int8 against bfloat16 with the kernels of AVX512-VNNI",
    "int8-avx2": "int8 against bfloat16 with the kernels of AVX2",
    "int8-quality": "predictions of int8, bfloat16 and llama.cpp's Q8_0 against float32",
    "int8-demo": "right answers of the demo's adapters over an int8 base",
    "speculation": "speed with and without forced tokens and prompt lookup",
    "context": "prefill and decode at long contexts",
    "interference": "ITL while a long prompt arrives",
    "neighbour": "throughput beside a busy loop of lowest priority",
    "batches": "throughput of batches, and TTFT of other requests beside them",
    "prefix": "TTFT with and without the prefix cache",
    "schema": "decode steps under a JSON Schema",
    "memory": "resident memory over 10,000 requests",
    "churn": "TTFT with 1,000 adapters registered and memory for some of them",
    "loading": "decode steps while an adapter loads",
    "updates": "updates of an adapter by body while it is served",
    "registered": "claims and throughput with 10,000 adapters registered",
    "scripts": "commands and time of each call of a queue script",
    "turnover": "adapter memory while 1,000 adapters evict each other",
    "gpu": "kernels and decode steps on a GPU",
    "scale": "1,000 simulated workers, and the cost of each part per job and token",
    "queue-tokens": "jobs and tokens that one Redis carries",
    "api-cpu": "CPU time of the API process per streamed token of chats",
    "first-token": "first token through queue and front end against a direct call",
    "workers": "16 workers against one",
    "shadow": "latency with and without a shadow that computes copies",
    "hostile-batches": "batches of 19 tenants without and beside a hostile one, under SIGKILLs",
    "hostile-limits": "tokens beyond a key's limit, and the ledger under SIGKILLs",
    "hostile-requests": "waits of a tenant beside generated requests of another",
    "hostile-adapters": "waits of a tenant beside mutated adapters of another",
    "fairness": "waiting times beside a heavy tenant, and shares by weight",
}
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

The newest result of each measurement on each machine, and the results that a page of this
repository cites by name. If a measurement needs a model, it is SmolLM2-135M in bfloat16. A file is
named after its date, commit and measurement; it holds every figure with the machine and the
versions. Git keeps the results that were replaced. [Benchmarks](../../docs/benchmarks.md) and
[scale](../../docs/scale.md) describe the measurements.

`python -m ops.generate.results_index` generates this page.
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
    machine = content["machine"]
    kind = path.stem[len("YYYY-MM-DD-") + len(machine["commit"]) :].lstrip("-") or COMPARISON
    return Result(
        path=path,
        date=content["date"],
        commit=machine["commit"],
        kind=kind,
        machine=_machine_text(machine),
        headline=_comparison(content) if kind == COMPARISON else _finding(content, kind),
    )


def _machine_text(machine: dict[str, Any]) -> str:
    cpu = machine["cpu"].replace("(R)", "").removesuffix(" Processor")
    extension = next(EXTENSIONS[flag] for flag in EXTENSIONS if flag in machine["cpu_flags"])
    return f"{machine['cores']} cores of {cpu}, {extension}"


def _comparison(content: dict[str, Any]) -> str:
    row = max(content["summary"], key=lambda row: _rank(row["scenario"]))
    scenario, speed = row["scenario"], row["tokens_per_s"]["median"]
    return f"{scenario['kind']}, {scenario['clients']} clients: {speed:.0f} tokens/s"


def _rank(scenario: dict[str, Any]) -> tuple[bool, int]:
    return scenario["kind"] == "adapters", scenario["clients"]


def _finding(content: dict[str, Any], kind: str) -> str:
    line: str = content["says"][HEADLINES.get(kind, 0)]
    return line


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
