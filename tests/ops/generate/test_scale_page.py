import math
from pathlib import Path

from ops.bench.json_files import write_json
from ops.bench.probes.finding import Finding
from ops.bench.scale.key_bytes import KindBytes
from ops.bench.scale.one_redis.drive import OneRedis
from ops.bench.scale.one_redis.queue_tokens import Case, queue_tokens_finding, row_of
from ops.bench.scale.sweep.finding import sweep_finding
from ops.bench.scale.sweep.loads import QUICK, Load
from ops.bench.scale.sweep.results import Measured, PoolResults, Sweep
from ops.generate.scale_page import PAGE, SECTIONS, page

MACHINE = {"cpu": "AMD EPYC", "cores": 2, "cpu_flags": ["avx2"], "commit": "abc"}


def write(folder: Path, finding: Finding, date: str = "2026-11-26") -> Path:
    path = folder / f"{date}-abc-{finding.name}.json"
    head = {"date": f"{date}T10:00:00", "machine": MACHINE}
    write_json({**head, "says": finding.says, "figures": finding.figures}, path)
    return path


def one_redis(redis_cpu_s: float) -> OneRedis:
    return OneRedis(
        jobs=1000,
        tokens=10_000,
        tokens_per_job=10,
        batch=4,
        seconds=2,
        redis_cpu_s=redis_cpu_s,
        bytes_per_running_job={"job": 1000},
        bytes_per_ended_job={"job": 300},
        bytes_per_worker=0,
    )


def tokens_finding(*, with_baseline: bool) -> Finding:
    baseline = [one_redis(1.0)] if with_baseline else []
    case = Case(jobs=1000, tokens_per_job=10, batch=4)
    return queue_tokens_finding([row_of(case, [one_redis(0.5)], baseline)])


def measured(load: Load) -> Measured:
    parts = ("redis", "workers", "front ends", "API process")
    return Measured(
        load=load,
        seconds=1,
        jobs_per_s=load.streams / load.tokens_per_job,
        tokens_per_s=load.streams,
        ceiling_tokens_per_s=2 * load.streams,
        delay_p50_ms=1.25 if load.streams else math.nan,
        delay_p99_ms=2.5 if load.streams else math.nan,
        tokens_per_step=1.5 if load.streams else math.nan,
        cores=dict.fromkeys(parts, 0.1 + 0.01 * load.streams),
        busy_cores=1,
        commands={},
    )


def pool_results(loads: tuple[Load, ...]) -> PoolResults:
    return PoolResults(
        results=tuple(map(measured, loads)),
        running_bytes={"job": KindBytes(12, 34_567)},
        num_running=4,
        ended_bytes={"job": KindBytes(8, 3000), "res": KindBytes(8, 1000)},
        lease_losses=0,
    )


def test_the_page_on_scale_is_current() -> None:
    assert PAGE.read_text() == page(), "run `python -m ops.generate.scale_page`"


def test_results_become_tables(tmp_path: Path) -> None:
    small, large = pool_results(QUICK.small.loads), pool_results(QUICK.large.loads)
    write(tmp_path, sweep_finding(Sweep(shape=QUICK, small=small, large=large)))
    write(tmp_path, tokens_finding(with_baseline=True))
    text = page(tmp_path)
    assert "| 4 | 0 | 4 | 8 | 1.2 | 2.5 | 0.14 | 0.14 | 0.14 |" in text
    assert "| `job` | 12 | 34,567 |" in text
    assert "| 10 | 4 | 500 | 2,000 | 20,000 | 1,000 | 300 | 2.00 x (2.00 to 2.00) |" in text


def test_the_newest_result_of_each_kind_is_shown_with_its_plot(tmp_path: Path) -> None:
    write(tmp_path, tokens_finding(with_baseline=True), "2026-11-25")
    newest = write(tmp_path, tokens_finding(with_baseline=False))
    newest.with_suffix(".png").touch()
    text = page(tmp_path)
    assert "2.00 x" not in text
    assert f"(../bench/results/{newest.stem}.png)" in text
    titles = [section.title for section in SECTIONS if f"## {section.title}" in text]
    assert titles == ["Jobs and tokens that one Redis carries"]
