"""Generates the page on scale in ops/docs from the newest results of the benchmarks.

The command is `python -m ops.generate.scale_page`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ops.generate.results_index import FOLDER, Result, results

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
_LINKED = "../bench/results"
_HEAD = """# Scale

How many jobs and tokens a pool carries, what each part of it costs, and whether tenants get fair
shares. The engines are simulated (`--engine simulated`): they take a set time for a step and
compute nothing, so that the figures show everything around an engine. All processes run on one
machine.

`python -m ops.generate.scale_page` generates this page from the newest
[results](../bench/results/README.md).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of the page about one kind of result."""

    kind: str
    title: str
    text: str
    tables: Callable[[dict[str, Any]], str]
    """Returns Markdown tables for the figures of a result."""


def page(folder: Path = FOLDER) -> str:
    """Return the page as Markdown. Kinds without a result are left out."""
    newest: dict[str, Result] = {}
    for result in results(folder):
        if result.kind not in newest or result.date > newest[result.kind].date:
            newest[result.kind] = result
    sections = [_section(one, newest[one.kind]) for one in SECTIONS if one.kind in newest]
    return _HEAD + "".join(sections)


def _section(section: Section, result: Result) -> str:
    content = orjson.loads(result.path.read_bytes())
    name = result.path.name
    plot = result.path.with_suffix(".png")
    parts = [
        f"\n## {section.title}\n\n{section.text}\n",
        f"\n![{section.title}]({_LINKED}/{plot.name})\n" if plot.exists() else "",
        "\n" + "\n".join(f"* {line}" for line in content["says"]) + "\n",
        section.tables(content["figures"]),
        f"\n{result.machine}, commit `{result.commit}` ([file]({_LINKED}/{name})).\n",
    ]
    return "".join(parts)


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(headers), " | ".join("---" for _ in headers), *map(" | ".join, rows)]
    return "\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _sweep_tables(figures: dict[str, Any]) -> str:
    sweep, costs = figures["sweep"], figures["costs"]
    large, pool = sweep["large"], sweep["shape"]["large"]["pool"]
    loads = [found for found in large["results"] if found["load"]["streams"]]
    parts = ("redis", "workers", "front ends")
    headers = ("streams", "jobs/s", "tokens/s", "ceiling", "delay p50, ms", "p99, ms", *parts)
    rows = [
        (
            _number(found["load"]["streams"]),
            _number(found["jobs_per_s"]),
            _number(found["tokens_per_s"]),
            _number(found["ceiling_tokens_per_s"]),
            _number(found["delay_p50_ms"], 1),
            _number(found["delay_p99_ms"], 1),
            *(_number(found["cores"][part], 2) for part in parts),
        )
        for found in loads
    ]
    cost_rows = [
        (part, _number(cost["us_per_job"]), _number(cost["us_per_token"]))
        for part, cost in costs.items()
    ]
    kinds = [
        (f"`{kind}`", _number(found[0]), _number(found[1]))
        for kind, found in ((k, (v["num_keys"], v["num_bytes"])) for k, v in _largest(large))
    ]
    return (
        f"\nThe pool of {pool['workers']:,} workers. The last three columns are cores in use.\n"
        + _table(headers, rows)
        + "\nCPU time of each part in the small pool. A job's tokens come on top of the job.\n"
        + _table(("part", "us per job", "us per token"), cost_rows)
        + f"\nThe largest kinds of keys with {large['num_running']} running jobs "
        "(`shared/store/redis/keys.py` describes them).\n"
        + _table(("kind", "keys", "bytes"), kinds)
    )


def _largest(large: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    return list(large["running_bytes"].items())[:10]


def _token_tables(figures: dict[str, Any]) -> str:
    headers = (
        *("tokens", "jobs per worker", "us of Redis per job", "jobs/s", "tokens/s"),
        *("bytes, running", "bytes, ended", "against the baseline"),
    )
    return _table(headers, map(_token_row, figures["rows"]))


def _token_row(row: dict[str, Any]) -> tuple[str, ...]:
    case, carried, ratio = row["case"], row["carried"], row["ratio"]
    return (
        _number(case["tokens_per_job"]),
        _number(case["batch"]),
        _number(carried["redis_us_per_job"]["median"]),
        _number(carried["jobs_per_s"]["median"]),
        _number(carried["tokens_per_s"]["median"]),
        _number(carried["bytes_per_running_job"]),
        _number(carried["bytes_per_ended_job"]),
        f"{ratio['median']:.2f} x ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else "-",
    )


def _no_tables(_: dict[str, Any]) -> str:
    return ""


SECTIONS = (
    Section(
        kind="scale",
        title="A large pool, and the cost of each part",
        text="""`python -m ops.bench scale` runs two pools, each with one Redis and 16 front ends.
The workers are `worker.service.Worker` objects, hundreds of them in a process. The front ends are
whole apps that the load generator calls in their process, without HTTP. Their figures include the
load generator, which takes a few percent. Adapters are requested by Zipf's law.

The large pool's load is raised step by step. Its processes saturate this machine long before they
saturate Redis: workers without jobs already renew leases, look for jobs and look for mail
thousands of times a second. Therefore a small pool, which leaves the machine idle time, gives the
CPU time per job and token of each part. Such a lightly loaded pool is the most expensive case: each
call finds the caches of the CPU cold, and each job wakes a worker. The next section has the cost
for Redis under full load. The CPU time of `workers` excludes their engines. `API process` is
`lorikeet api`, with HTTP. The delay of a token is the time from the end of the engine's step until
the client has the token.""",
        tables=_sweep_tables,
    ),
    Section(
        kind="queue-tokens",
        title="Jobs and tokens that one Redis carries",
        text="""`python -m ops.bench queue-tokens` drives the queue's scripts from one process,
without engines and HTTP: 4 workers claim, publish and finish jobs with prompts of 128 words, and
16 front ends read their reply streams. Jobs always wait, and each worker always has the stated
number of jobs, of which it publishes one token each in one call. The process saturates its core
before Redis does, so the rates are those at which the CPU time of Redis per job would fill a core.
Bytes are measured two seconds after the last token, and include the job's share of the reply
streams. With `--baseline`, each round measures this checkout and another one in turn, each with a
Redis of its own.""",
        tables=_token_tables,
    ),
    Section(
        kind="first-token",
        title="The first token",
        text="""`python -m ops.bench first-token` sends streamed requests one after another to
`lorikeet api` and a worker process, and compares the time to the first token with that of the same
engine when it is called directly. A request that arrives during a step waits for the next one in
both cases.""",
        tables=_no_tables,
    ),
    Section(
        kind="api-cpu",
        title="The API process",
        text="""`python -m ops.bench api-cpu` streams chats of 64 tokens to 32 clients, and measures
the CPU time of the API process per token. With `--baseline`, API processes of two checkouts serve
the same pool, and each round measures both in random order.""",
        tables=_no_tables,
    ),
    Section(
        kind="workers",
        title="Many workers against one",
        text="""`python -m ops.bench workers` measures one worker process and 16 in turn, with
streams over HTTP and always more of them than sequences. Steps take 200 ms, so that the engines
limit the throughput and not the cores.""",
        tables=_no_tables,
    ),
    Section(
        kind="fairness",
        title="Tenants",
        text="""`python -m ops.bench fairness` sends requests of several tenants, each with an API
key, to an API process and one worker process. A tenant's waiting time is the mean over its jobs
from sending to the first token. The largest ratio of all light tenants counts. Shares by weight
are counted while jobs of both tenants wait.""",
        tables=_no_tables,
    ),
)


if __name__ == "__main__":
    PAGE.write_text(page())
