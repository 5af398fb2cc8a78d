"""Runs with hostile clients: what they send, what they notice, and short runs of all."""

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ops.lab.hostile.adapter_mutations import MUTATIONS, Mutation, Sent, mutated, read_adapter
from ops.lab.hostile.adapters import GOOD
from ops.lab.hostile.batch_inputs import ADAPTERS, custom_ids, hostile_kinds, requests
from ops.lab.hostile.ledger_run import LedgerResult
from ops.lab.hostile.limits import _ledger_faults, _overrun_faults
from ops.lab.hostile.neighbour import Waits
from ops.lab.hostile.observation import Observation
from ops.lab.hostile.overruns import OverrunResult
from ops.lab.hostile.pool_size import PoolSize, pool_size
from shared.errors import AdapterRejected
from shared.store.access.ledger import Used
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.lora.checkpoint.adapter_files import AdapterFiles

WEIGHTS = (GOOD / "adapter_model.safetensors").read_bytes()
USED = Used(10, prompt_tokens=300, completion_tokens=700)
LEDGER = LedgerResult(
    kills=2,
    moved=30,
    jobs=10,
    without_usage=0,
    answers=9,
    ledger=USED,
    usage=USED,
    counted_tokens=1000,
    reserved_tokens=0,
    differing_answers=0,
)
LONG_WITH_DEMO = [pytest.mark.long, pytest.mark.demo]


@pytest.fixture(scope="module")
def good() -> Sent:
    return read_adapter((GOOD / "adapter_config.json").read_bytes(), WEIGHTS)


def is_served(sent: Sent, folder: Path) -> bool:
    (folder / "adapter_config.json").write_bytes(sent.config_bytes())
    (folder / "adapter_model.safetensors").write_bytes(sent.weights(None))
    try:
        AdapterFiles(folder).check()
    except AdapterRejected:
        return False
    return True


def test_a_seed_gives_the_same_mutated_adapters_and_some_can_be_served(
    good: Sent, tmp_path: Path
) -> None:
    assert is_served(good, tmp_path)
    assert good.data == WEIGHTS[-len(good.data) :]
    sent, again = ([mutated(rng, good) for _ in range(60)] for rng in map(random.Random, (1, 1)))
    assert sent == again
    outcomes = Counter(is_served(each, tmp_path) for each in sent)
    assert min(outcomes[True], outcomes[False]) >= 5


@pytest.mark.parametrize("mutation", dict.fromkeys(MUTATIONS), ids=lambda each: each.__name__)
def test_each_mutation_changes_the_files(mutation: Mutation, good: Sent) -> None:
    sent = [mutation(random.Random(seed), good) for seed in range(5)]
    files = {(each.config_bytes(), each.weights(None)) for each in sent}
    assert files != {(good.config_bytes(), good.weights(None))}


def test_batches_have_one_line_for_each_custom_id_and_only_deep_lines_fail_as_a_whole() -> None:
    assert len(custom_ids(requests(ADAPTERS, 30))) == 30
    kinds = list(hostile_kinds(12))
    assert [kind.name for kind in kinds if kind.fails_whole] == ["deep lines"]
    for kind in kinds:
        lines = kind.content.splitlines()
        assert len(set(custom_ids(kind.content))) == len(lines)
        assert all(orjson.loads(line) for line in lines)


async def test_what_a_run_leaves_behind_is_noticed(
    redis: Redis, keys: Keys, tmp_path: Path
) -> None:
    async def measure() -> PoolSize:
        return await pool_size(redis, keys.prefix, tmp_path, waits=True)

    before = await measure()
    await redis.set(f"{keys.prefix}res:1", "x")
    await redis.hset(f"{keys.prefix}res:2", mapping={"a": 1, "b": 2})
    (tmp_path / "object").write_text("x")
    assert (await measure()).excess_over(before) == [
        "2 more keys of the kind res",
        "2 more items of the kind res",
        "1 more objects in the file store",
    ]


@pytest.mark.parametrize(
    ("windows", "made", "is_good"),
    [
        *((1, 160, True), (1, 161, False), (2, 260, True), (2, 261, False)),
        *((10, 1060, True), (10, 1061, False), (10, 1101, False), (1, 99, False)),
    ],
)
def test_a_key_gets_its_limits_and_little_more(windows: int, made: int, is_good: bool) -> None:
    found = OverrunResult(limit=100, windows=windows, made=made, answers={})
    assert bool(_overrun_faults(found)) is not is_good


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({}, True),
        ({"ledger": replace(USED, completion_tokens=699)}, False),
        ({"ledger": replace(USED, requests=11)}, False),
        ({"counted_tokens": 1001}, False),
        ({"counted_tokens": 999, "without_usage": 3}, False),
        ({"counted_tokens": 1001, "without_usage": 1}, True),
        ({"reserved_tokens": 1}, False),
        ({"differing_answers": 1}, False),
        ({"moved": 19}, False),
    ],
)
def test_the_ledger_and_the_limit_equal_the_answers(changes: Any, is_good: bool) -> None:
    assert bool(_ledger_faults(replace(LEDGER, **changes), 2)) is not is_good


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({}, None),
        ({"attacked": Waits(health_s=1.2)}, "waited 1.20 s longer: health_s"),
        ({"attacked": Waits(stream_s=2.5)}, "waited 2.50 s longer: stream_s"),
        ({"attacked": Waits(failures=["x"])}, "request of the other tenant failed: x"),
        ({"memory_mib": {"worker": [100.0, 165.0]}}, "worker grew from 100.0 to 165.0 MiB"),
        ({"ended": ["worker"]}, "the process worker ended"),
    ],
)
def test_a_run_fails_for_its_reason(changes: dict[str, Any], failure: str | None) -> None:
    found = Observation(**changes).faults(compares=True)
    assert len(found) == (failure is not None)
    assert failure is None or failure in found[0]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("module", "finding"),
    [
        pytest.param("batches", "no faults", marks=pytest.mark.long),
        pytest.param("limits", "no faults", marks=pytest.mark.long),
        pytest.param("adapters", "accepted adapters answered", marks=LONG_WITH_DEMO),
        pytest.param("requests", "slowest request", marks=LONG_WITH_DEMO),
    ],
)
def test_a_short_run_finds_no_fault(module: str, finding: str) -> None:
    command = [sys.executable, "-m", f"ops.lab.hostile.{module}", "--quick"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=880)
    assert run.returncode == 0, run.stdout + run.stderr
    assert finding in run.stdout
