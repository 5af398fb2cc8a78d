"""The whole probes on a tiny model, whose figures are meaningless."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from ops.bench.load.lengths import Length
from ops.bench.load.load import send_load
from ops.bench.probes.churn import ChurnShape, churn_finding, measure_churn
from ops.bench.probes.interference import disturb, interference_finding, streams_of
from ops.bench.probes.memory import measure_memory, memory_finding
from ops.bench.probes.neighbour.finding import neighbour_finding
from ops.bench.probes.neighbour.rounds import (
    OTHER_SESSION,
    SAME_SESSION,
    Sizes,
    loop_cores,
    measure_neighbour,
)
from ops.bench.probes.prefix import prefix_finding, shared_prefix
from ops.bench.probes.registered import (
    Registered,
    measure_claims,
    measure_served,
    registered_finding,
)
from ops.bench.probes.schema import measure_schema
from ops.bench.probes.steps import measure_contexts, measure_lora, measure_parts, measure_steps
from ops.bench.probes.tiers import Budgets, measure_loading, measure_turnover
from ops.bench.probes.updates import adapter_bodies, measure_updates, updates_finding
from ops.bench.random_adapters import make_adapters
from ops.bench.server_processes import Serving
from ops.bench.servers import lorikeet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # the started processes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 128 words are about 600 tokens of the byte-level tokenizer.
    return tiny.save_tiny_model(tmp_path_factory.mktemp("tiny"), max_position_embeddings=4096)


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    make_adapters(model, folder)
    return folder


@pytest.fixture(scope="module")
def serving(
    model: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    named = {folder.name: folder for folder in adapters.iterdir()}
    with lorikeet(model, named, tmp_path_factory.mktemp("scratch")) as serving:
        yield serving


def test_steps_are_measured_with_the_floor(model: Path, adapters: Path) -> None:
    finding = measure_steps(model, adapters, [1, 3])
    assert [step.batch for step in finding.figures["steps"]] == [1, 3]
    assert all(step.base_ms > 0 for step in finding.figures["steps"])
    assert [floor.batch for floor in finding.figures["floor"]] == [1, 3]


def test_the_parts_of_a_step_add_up(model: Path, adapters: Path) -> None:
    found = measure_parts(model, adapters, [1, 3]).figures["parts"]
    assert [(one.batch, one.adapters) for one in found] == [(1, 0), (1, 1), (3, 0), (3, 3)]
    for one in found:
        parts = (one.layers_ms, one.head_ms, one.other_modules_ms, one.sampling_ms, one.batch_ms)
        assert all(ms > 0 for ms in (*parts, one.bookkeeping_ms))
        assert sum(parts) + one.bookkeeping_ms == pytest.approx(one.step_ms)


def test_the_lora_bytes_are_those_of_the_batched_adapters(model: Path, adapters: Path) -> None:
    one, two = measure_lora(model, adapters, [1, 2]).figures["steps"]
    assert two.lora_bytes == 3 * one.lora_bytes  # ranks 8 and 16


def test_contexts_are_measured_with_the_bytes_of_their_keys_and_values(model: Path) -> None:
    short, long = measure_contexts(model, [100, 200]).figures["contexts"]
    assert long.kv_bytes == 2 * short.kv_bytes
    assert short.step_ms > 0
    assert short.prefill_ms_per_token > 0


def test_rows_with_a_schema_are_measured_against_free_rows(model: Path) -> None:
    cost = measure_schema(model, 3).figures["cost"]
    assert len(cost.free_ms) == len(cost.bound_ms) > 1
    assert all(ms > 0 for ms in (*cost.free_ms, *cost.bound_ms))


def test_claims_are_measured_by_how_many_adapters_are_registered(redis_url: str) -> None:
    few, many = measure_claims(redis_url, [2, 20], 2, 2)
    assert len(few) == len(many) == 2
    assert all(us > 0 for us in (*few, *many))


def test_servers_are_measured_in_turn_and_compared_round_by_round(serving: Serving) -> None:
    one, other = measure_served([serving.url, serving.url], ["a0", "a1"], 2)
    sizes = [
        Registered(adapters=size, claim_us=[50.0, 60.0], tokens_per_s=rates)
        for size, rates in ((10, one), (10_000, [2 * rate for rate in one]))
    ]
    assert len(other) == 2
    assert "10,000 adapters" in registered_finding(sizes, 2).says[1]
    assert "(2.000 x)" in registered_finding(sizes, 2).says[1]


def test_without_a_gpu_one_line_says_that_nothing_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ops.bench", "gpu"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == (
        "bench: gpu: torch finds no usable GPU, so nothing is measured "
        "(--model-size tiny tries the command on a CPU)"
    )


def test_a_long_prompt_arrives_among_running_streams(serving: Serving) -> None:
    streams = streams_of(serving.url, ["a0", "a1"], 4, "seed")
    found = asyncio.run(disturb(streams, prompt_words=300))
    assert found.ttft_s > 0
    assert found.before_s
    assert found.during_s
    assert "x their median" in interference_finding([found]).says[0]


def test_a_pool_is_measured_beside_a_busy_loop(serving: Serving) -> None:
    sizes = Sizes(rounds=2, clients=2, requests_per_client=1, length=Length(8, 8))
    found = list(measure_neighbour(serving, ["a0", "a1"], sizes, print))
    assert {one.core for one in found} == set(loop_cores())
    for one in found:
        assert all(speed > 0 for speed in one.tokens_per_s.values())
        assert set(one.core_share) == {SAME_SESSION, OTHER_SESSION}
        # Loads this short last only a few of the ticks that CPU time is counted in. A share may
        # then be 0, and it may exceed 1.
        assert all(share >= 0 for share in one.core_share.values())
    says = neighbour_finding(found, sizes, 2, autogroup=False).says
    assert says[0].startswith("2 adapters, 2 clients, undisturbed: ")


def test_a_shared_prefix_is_sent_and_timed(serving: Serving) -> None:
    answers = asyncio.run(send_load(shared_prefix(serving.url, "a0", 6, 20)))
    assert [answer.error for answer in answers] == [None] * 6
    assert prefix_finding(answers, answers, 20).figures["cached_s"].p50 > 0


def test_steps_during_a_load_are_separated_from_the_others(model: Path, adapters: Path) -> None:
    found = measure_loading(model, [adapters / "a0", adapters / "a1"], adapters / "a2", 2, rounds=2)
    steps = found.figures["steps"]
    assert len(steps.load_s) == 2
    assert len(steps.usual_ms) >= 2 * 19
    assert len(steps.loading_ms) >= 2


def test_memory_is_sampled_while_adapters_alternate(model: Path, adapters: Path) -> None:
    found = measure_turnover(
        model, sorted(adapters.iterdir()), loads=30, budgets=Budgets(device_mb=1, host_mb=1)
    )
    samples = found.figures["samples"]
    assert [sample.loads for sample in samples] == list(range(1, 31))
    assert all(0 < sample.device_bytes <= 1 << 20 for sample in samples)
    assert samples[-1].host_bytes <= 1 << 20


def test_many_adapters_go_through_the_tiers(model: Path, adapters: Path, tmp_path: Path) -> None:
    shape = ChurnShape(registered=12, device=4, host=6, requests=20, share=0.5)
    churn, resident, tiered = measure_churn(model, sorted(adapters.iterdir()), tmp_path, shape)
    assert len(resident) == len(tiered) == 20
    assert churn.tiered_ttft_s.p99 > 0
    assert "x the" in churn_finding(churn, resident, tiered).says[0]


def test_the_memory_of_every_process_is_sampled(serving: Serving) -> None:
    samples = measure_memory(serving.url, ["a0", "a1"], serving.pids, requests=20)
    assert [sample.answered for sample in samples] == list(range(0, 22, 2))
    assert set(memory_finding(samples).chart.series) == {"worker", "api", "redis"}


def test_updates_are_measured_while_streams_run(serving: Serving, adapters: Path) -> None:
    config, bodies = adapter_bodies(adapters / "a0", 4)
    found = asyncio.run(measure_updates(serving, config, bodies, streams=2, usual_s=1.0))
    assert len(found.sent_to_answer_s) == len(found.rss_bytes) == 3
    pairs = zip(found.sent_to_registered_s, found.sent_to_answer_s, strict=True)
    assert all(0 < registered < answered for registered, answered in pairs)
    assert 1 <= found.versions <= 4
    finding = updates_finding(found)
    assert finding.says[0].startswith("3 updates of ")
    assert finding.chart.series["updates"]
