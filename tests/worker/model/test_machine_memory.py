"""Memory of machines and containers, read from scripted /proc and /sys."""

from pathlib import Path

import pytest

from worker.model.machine_memory import machine_memory
from worker.model.memory_policy import GIB

MEMINFO = "MemTotal: {} kB\nMemFree: 1 kB\nMemAvailable: {} kB\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of 64 GiB, of which 32 GiB are available."""
    write(tmp_path / "proc/meminfo", MEMINFO.format(64 << 20, 32 << 20))
    write(tmp_path / "proc/self/statm", "1000 500 100 1 0 300 0")
    return tmp_path


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_a_machine_keeps_a_gib_of_its_available_memory_to_itself(root: Path) -> None:
    memory = machine_memory(root)
    assert (memory.total, memory.free) == (64 * GIB, 31 * GIB)
    assert memory.used == 500 * 4096


def test_a_containers_limit_counts_and_its_file_cache_is_free(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/")
    group = root / "sys/fs/cgroup"
    write(group / "memory.max", 8 * GIB)
    write(group / "memory.current", 5 * GIB)
    write(group / "memory.stat", f"anon 1\ninactive_file {2 * GIB}")
    memory = machine_memory(root)
    assert (memory.total, memory.free) == (8 * GIB, 4 * GIB)


def test_the_smallest_limit_of_all_parent_groups_counts(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/system.slice/lorikeet.service")
    for folder, limit in (("system.slice", 4 * GIB), ("system.slice/lorikeet.service", "max")):
        write(root / "sys/fs/cgroup" / folder / "memory.max", limit)
        write(root / "sys/fs/cgroup" / folder / "memory.current", GIB)
        write(root / "sys/fs/cgroup" / folder / "memory.stat", "inactive_file 0")
    memory = machine_memory(root)
    assert memory.total == 4 * GIB
    assert memory.free == 4 * GIB - GIB - GIB // 2


def test_control_groups_of_version_1_count_even_under_a_path_of_the_host(root: Path) -> None:
    write(root / "proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc")
    group = root / "sys/fs/cgroup/memory"
    write(group / "memory.limit_in_bytes", 2 * GIB)
    write(group / "memory.usage_in_bytes", GIB)
    write(group / "memory.stat", f"cache 5\ntotal_inactive_file {GIB // 4}")
    memory = machine_memory(root)
    assert memory.total == 2 * GIB
    assert memory.free == GIB + GIB // 4 - GIB // 4


def test_without_proc_half_of_the_memory_counts_as_free(tmp_path: Path) -> None:
    memory = machine_memory(tmp_path)
    assert 0 < memory.free < memory.total / 2
    assert memory.used == 0


def test_this_machine_can_be_read() -> None:
    memory = machine_memory()
    assert 0 < memory.used < memory.total
    assert memory.free < memory.total
