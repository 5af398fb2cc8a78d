"""The run of batches beside a hostile tenant, and what it notices."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from ops.lab.hostile.batch_inputs import ADAPTERS, custom_ids, hostile_kinds, requests
from ops.lab.hostile.pool_size import PoolSize, pool_size
from ops.lab.hostile.source import flaky_source
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


def test_inputs_have_one_line_for_each_custom_id() -> None:
    assert len(custom_ids(requests(ADAPTERS, 30))) == 30
    for kind in hostile_kinds(12):
        assert len(set(custom_ids(kind.content))) == len(kind.content.splitlines())


def test_only_the_deep_lines_fail_as_a_whole() -> None:
    assert [kind.name for kind in hostile_kinds(5) if kind.fails_whole] == ["deep lines"]
    assert all(
        orjson.loads(line) for kind in hostile_kinds(5) for line in kind.content.splitlines()
    )


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


def test_a_source_can_be_held_away() -> None:
    with flaky_source() as source:
        assert not source.is_away
        source.is_held_away = True
        assert source.is_away


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_run_finds_no_fault() -> None:
    command = [sys.executable, "-m", "ops.lab.hostile.batches", "--quick"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "no faults" in run.stdout
