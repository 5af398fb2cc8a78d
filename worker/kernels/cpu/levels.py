"""Instruction-set levels of x86-64. A wheel contains compiled kernels for each level."""

import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "LORIKEET_CPU_LEVEL"
"""Environment variable of the setting `cpu_level`. It applies to all processes with kernels."""
AUTO = "auto"


class LevelUnavailable(Exception):
    """The CPU can't run the forced level."""


@dataclass(frozen=True, slots=True)
class Level:
    """One compiled variant of the kernels, and the CPUs that can run it."""

    name: str
    compiler_flags: tuple[str, ...]
    """Flags of GCC and Clang that permit the level's instructions."""
    cpu_flags: frozenset[str]
    """Features that the CPU must have, named as in /proc/cpuinfo."""


_SSE = frozenset({"cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_AVX2_CPU = _SSE | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
_AVX512_CPU = _AVX2_CPU | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI = ("-march=x86-64-v4", "-mavx512vnni")
_VNNI_CPU = _AVX512_CPU | {"avx512_vnni"}
_BF16 = (*_VNNI, "-mavx512bf16")
_BF16_CPU = _VNNI_CPU | {"avx512_bf16"}
_AMX = ("-mamx-tile", "-mamx-int8", "-mamx-bf16")

LEVELS = (
    # If Linux withholds the tiles from the process, this level computes as the next one does.
    Level("amx", (*_BF16, *_AMX), _BF16_CPU | {"amx_tile", "amx_int8", "amx_bf16"}),
    Level("avx512-bf16", _BF16, _BF16_CPU),
    Level("avx512-vnni", _VNNI, _VNNI_CPU),
    Level("avx512", ("-march=x86-64-v4",), _AVX512_CPU),
    Level("avx-vnni", ("-march=x86-64-v3", "-mavxvnni"), _AVX2_CPU | {"avx_vnni"}),
    Level("avx2", ("-march=x86-64-v3",), _AVX2_CPU),
)
"""All levels, the fastest first. The kernels' sources distinguish no others."""


def usable_levels(flags: Set[str]) -> list[Level]:
    """Return the levels that a CPU with these features can run, the fastest first."""
    return [level for level in LEVELS if level.cpu_flags <= flags]


def forced_level(flags: Set[str]) -> Level | None:
    """Return the level that `LORIKEET_CPU_LEVEL` names, if any. Raises LevelUnavailable."""
    name = os.environ.get(VARIABLE) or AUTO
    if name == AUTO:
        return None
    levels = usable_levels(flags)
    found = next((level for level in levels if level.name == name), None)
    if found is None:
        names = ", ".join([AUTO, *(level.name for level in levels)])
        raise LevelUnavailable(f"{VARIABLE}={name}: this CPU can't run these kernels; use {names}")
    return found


def cpu_flags() -> frozenset[str]:
    """Return the CPU's features, named as in /proc/cpuinfo.

    Linux leaves out features that it doesn't support itself. The result is empty on other systems.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = [line for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(found[0].partition(":")[2].split()) if found else frozenset()
