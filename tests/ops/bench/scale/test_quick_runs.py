"""The whole measurements at tiny sizes, at which their figures are meaningless."""

import sys
from pathlib import Path

import pytest

from ops.bench.machine import ROOT
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.scale import api_cpu, first_token, shadow, worker_rates
from ops.bench.scale.fairness import rounds
from ops.bench.scale.fairness.measure import measure_fairness
from ops.bench.scale.hosts.host_process import HostProcess
from ops.bench.scale.one_redis import queue_tokens
from ops.bench.scale.sweep import loads
from ops.bench.scale.sweep.finding import sweep_finding
from ops.bench.scale.sweep.measure import measure_scale

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="measures CPU times in /proc"),
]


def test_two_checkouts_are_measured_in_each_round() -> None:
    (row,) = queue_tokens.measure_queue_tokens(queue_tokens.QUICK, ROOT)
    assert len(row.rounds) == len(row.baseline_rounds) == queue_tokens.QUICK.rounds
    assert row.ratio is not None
    assert row.baseline is not None
    assert row.baseline.bytes_per_ended_job == pytest.approx(
        row.carried.bytes_per_ended_job, rel=0.2
    )


def test_a_served_first_token_takes_longer_than_a_direct_one(tmp_path: Path) -> None:
    sizes = first_token.QUICK
    unloaded, loaded = first_token.measure_first_token(sizes, tmp_path)
    assert (unloaded.background, loaded.background) == (0, sizes.background)
    for found in (unloaded, loaded):
        assert len(found.direct_ms) == len(found.served_ms) == sizes.requests
        assert found.direct_ms[0] >= sizes.step_ms
        assert found.added_ms(50) > 0


def test_the_rates_stay_below_those_of_engines_that_never_wait(tmp_path: Path) -> None:
    sizes = worker_rates.QUICK
    (found,) = worker_rates.measure_worker_rates(sizes, tmp_path)
    assert 0 < found.one.tokens_per_s <= 1.3 * sizes.ceiling(1)
    assert 0 < found.many.tokens_per_s <= 1.3 * sizes.ceiling(2)
    assert found.share > 0.3


def test_tenants_are_measured_with_their_weights(tmp_path: Path) -> None:
    sizes = rounds.QUICK
    (found,) = measure_fairness(sizes, tmp_path)
    assert list(found.ratios) == sizes.light
    assert all(ratio > 0 for ratio in found.ratios.values())
    assert found.gold_per_silver > 1.5


def test_a_shadow_computes_copies_of_the_requests(tmp_path: Path) -> None:
    (found,) = shadow.measure_shadow(shadow.QUICK, tmp_path, print)
    assert len(found.alone_ms) == len(found.shadowed_ms) == shadow.QUICK.requests
    assert found.num_copies > 0
    assert found.ratio > 0
    latency, copies = shadow.shadow_finding([found], shadow.QUICK).says
    assert "target at most 1.05" in latency
    assert f"{found.num_copies} copies" in copies


def test_loads_of_both_pools_are_measured(tmp_path: Path) -> None:
    shape = loads.QUICK
    found = measure_scale(shape, tmp_path)
    assert [one.load for one in found.small.results] == list(shape.small.loads)
    assert [one.load for one in found.large.results] == list(shape.large.loads)
    for one in (*found.small.results, *found.large.results):
        assert (one.tokens_per_s > 0) == (one.load.streams > 0)
    assert found.small.lease_losses == found.large.lease_losses == 0
    assert found.large.running_bytes["job"].num_keys > found.large.num_running
    assert {"redis", "workers", "front ends", "API process"} == set(
        sweep_finding(found).figures["costs"]
    )


def test_a_host_that_ends_fails_the_measurement_with_its_log(tmp_path: Path) -> None:
    with (
        HostProcess("hosts.stream_host", "none", log=tmp_path / "host.log") as host,
        pytest.raises(MeasurementFailed, match="Invalid value"),
    ):
        host.ask("totals")


def test_two_api_processes_are_measured_in_each_round(tmp_path: Path) -> None:
    lines: list[str] = []
    sizes = api_cpu.QUICK
    measured = api_cpu.measure_api_cpu(sizes, ROOT, tmp_path, lines.append)
    assert len(measured) == len(lines) == sizes.rounds
    for found in measured:
        assert found.us > 0
        assert found.baseline_us
        assert found.baseline_us > 0
    (line,) = api_cpu.api_cpu_finding(measured, sizes).says
    assert "before" in line
