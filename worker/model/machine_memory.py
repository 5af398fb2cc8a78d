"""Reads how much memory this machine or container has."""

import os
from collections.abc import Iterator
from pathlib import Path

from worker.model.memory_policy import GIB, DeviceMemory

MAX_RESERVE = 1 * GIB
"""Maximum bytes that are left free for Redis, the front end and the rest of the machine."""
RESERVE_SHARE = 8
"""Divisor of a small machine's memory. The quotient is left free instead of MAX_RESERVE."""


def machine_memory(root: Path = Path("/")) -> DeviceMemory:
    """Return the memory of this machine, within the limits of this process's control groups.

    On systems without /proc, half of the memory counts as free. `root` is the folder that contains
    /proc and /sys.
    """
    meminfo = _meminfo(root / "proc" / "meminfo")
    total = meminfo.get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = meminfo.get("MemAvailable", total // 2)
    for limit, used in _limits(root):
        total, free = min(total, limit), min(free, limit - used)
    reserve = min(MAX_RESERVE, total // RESERVE_SHARE)
    words = _text(root / "proc" / "self" / "statm").split()
    own = int(words[1]) * os.sysconf("SC_PAGE_SIZE") if words else 0  # of this process
    return DeviceMemory(total=total, free=max(0, free - reserve), used=own)


def _meminfo(path: Path) -> dict[str, int]:
    """Return the sizes in /proc/meminfo in bytes, by name."""
    lines = (line.split() for line in _text(path).splitlines())
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) > 2}


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, usage), in bytes, for each control group of this process that has a limit.

    The kernel's inactive file cache counts as free, because the kernel can drop it.
    """
    for folder, names in _control_groups(root):
        limit, used, file_cache = names
        if (size := _text(folder / limit)).isdigit():
            stat = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
            usage = int(_text(folder / used) or 0) - int(stat.get(file_cache, 0))
            yield int(size), max(0, usage)


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def _control_groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yield the folder of each control group of this process, with the names of three files in it.

    The parents of these groups are included. A container sometimes sees only its own group. This
    group is then the folder /sys/fs/cgroup itself, although its path names a deeper folder.
    """
    top = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        base, names = (top, _VERSION_2) if number == "0" else (top / "memory", _VERSION_1)
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(base):
                yield folder, names


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # another version of control groups, or another operating system
        return ""
