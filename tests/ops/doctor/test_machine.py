"""Facts about folders, this machine, its Redis, and the adapters of the settings."""

from pathlib import Path
from typing import Any

import pytest

from ops.doctor.adapters import adapter_facts
from ops.doctor.machine import folder_facts, machine_facts
from ops.doctor.redis_check import own_redis_facts, redis_facts
from ops.local.embedded_redis import EmbeddedRedis
from shared.settings import PoolSettings
from shared.store.redis.connection import connect


def test_a_folder_that_does_not_exist_yet_can_be_created(tmp_path: Path) -> None:
    found = folder_facts("cache", tmp_path / "a" / "b", setting="X", least_free=1)
    assert found.problem is None
    assert found.free is not None


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = folder_facts("cache", tmp_path / "file" / "b", setting="XDG", least_free=1)
    assert found.problem is not None
    assert f"{tmp_path / 'file'} is a file" in found.problem.text
    assert "set XDG to another folder" in found.problem.fix


def test_a_folder_with_too_little_space_or_that_nobody_can_write_to_is_a_problem(
    tmp_path: Path,
) -> None:
    found = folder_facts("cache", tmp_path, setting="X", least_free=1 << 60)
    assert found.problem is not None
    assert "MiB free" in found.problem.text
    assert folder_facts("cache", Path("/proc/lorikeet"), setting="X", least_free=1).problem


def test_this_machine_has_torch_and_cores() -> None:
    found = machine_facts(None, ())
    assert found.cores >= 1
    assert found.torch
    assert found.missing_packages == ()
    assert 0 < found.free_memory < found.memory


def test_the_program_of_the_own_redis_is_named() -> None:
    found = own_redis_facts()
    assert found.problem is None
    assert found.server.split()[1][0].isdigit()


async def test_a_redis_without_an_append_only_file_is_warned_of(
    own_server: EmbeddedRedis,
) -> None:
    found = await redis_facts(PoolSettings(redis_url=own_server.url))
    assert found.problem is None
    assert "noeviction" in found.details
    [warning] = found.warnings
    assert "appendonly yes" in warning.fix


@pytest.mark.parametrize(
    ("setting", "value", "durability", "part"),
    [
        ("maxmemory-policy", "allkeys-lru", "default", "set it to noeviction"),
        ("requirepass", "sesame", "default", "needs a password"),
        ("appendonly", "no", "strict", "--durability strict"),
    ],
)
async def test_a_redis_that_cannot_be_used_is_a_problem(
    own_server: EmbeddedRedis, setting: str, value: str, durability: Any, part: str
) -> None:
    client = connect(own_server.url)
    await client.config_set(setting, value)
    await client.aclose()
    found = await redis_facts(PoolSettings(redis_url=own_server.url, durability=durability))
    assert found.problem is not None
    assert part in found.problem.text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("s3://bucket/sql", "s3://bucket/sql, fetched by the workers"),
        ("https://h/x.zip?signature=secret", "https://h/x.zip, fetched by the workers"),
        ("org/repo@v2", "org/repo@v2, from the hub"),
    ],
)
def test_adapters_elsewhere_are_not_fetched(source: str, shown: str) -> None:
    facts = adapter_facts("sql", source, bases_name="base")
    assert (facts.source, facts.problem) == (shown, None)
