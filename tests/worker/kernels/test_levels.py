"""Which compiled kernels a CPU gets: every instruction that a level permits is one that it has."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import WorkerSettings
from worker.kernels.cpu.build import FLAGS, SOURCES
from worker.kernels.cpu.levels import (
    AUTO,
    LEVELS,
    VARIABLE,
    Level,
    LevelUnavailable,
    cpu_flags,
    forced_level,
    usable_levels,
)

FEATURES = sorted(frozenset().union(*(level.cpu_flags for level in LEVELS)))
MACHINES = st.sets(st.sampled_from(FEATURES))
ICE_LAKE = LEVELS[0].cpu_flags - {"avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"}
HASWELL = frozenset(flag for flag in ICE_LAKE if not flag.startswith("avx512"))
LINUX_NAMES = {
    "LZCNT": "abm",
    "BMI": "bmi1",
    "LAHF_SAHF": "lahf_lm",
    "SSE3": "pni",
    "AVX512VNNI": "avx512_vnni",
    "AVXVNNI": "avx_vnni",
    "AVX512BF16": "avx512_bf16",
    "CRC32": "sse4_2",
}
"""Linux' names of features that GCC calls otherwise. The others differ in case only."""


@given(MACHINES)
def test_a_level_is_usable_exactly_if_the_cpu_has_all_its_features(machine: set[str]) -> None:
    usable = usable_levels(machine)
    assert usable == [level for level in LEVELS if not level.cpu_flags - machine]


@given(MACHINES)
def test_a_cpu_that_can_run_a_level_can_run_the_slowest_one(machine: set[str]) -> None:
    usable = usable_levels(machine)
    assert usable[-1:] == ([LEVELS[-1]] if usable else [])


@given(MACHINES, st.sampled_from(LEVELS))
def test_a_level_can_be_forced_exactly_if_it_is_usable(machine: set[str], level: Level) -> None:
    with mock.patch.dict(os.environ, {VARIABLE: level.name}):
        if level in usable_levels(machine):
            assert forced_level(machine) is level
        else:
            with pytest.raises(LevelUnavailable, match=f"{VARIABLE}={level.name}: this CPU can't"):
                forced_level(machine)


@pytest.mark.parametrize("value", ["", AUTO])
def test_by_default_no_level_is_forced(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert forced_level(LEVELS[0].cpu_flags) is None


def test_the_setting_has_all_levels() -> None:
    values = get_args(WorkerSettings.model_fields["cpu_level"].annotation)
    assert values == (AUTO, *(level.name for level in LEVELS))


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (LEVELS[0].cpu_flags, "amx"),
        (LEVELS[0].cpu_flags - {"amx_bf16"}, "avx512-bf16"),
        (ICE_LAKE, "avx512-vnni"),
        (ICE_LAKE - {"avx512_vnni"}, "avx512"),
        (HASWELL | {"avx_vnni"}, "avx-vnni"),
        (HASWELL, "avx2"),
        ({"avx2"}, None),
        (set(), None),
    ],
)
def test_known_machines_get_their_level(machine: set[str], name: str | None) -> None:
    assert next((level.name for level in usable_levels(machine)), None) == name


@pytest.mark.parametrize("level", LEVELS, ids=[level.name for level in LEVELS])
def test_the_compiler_may_use_only_features_that_are_checked(level: Level) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    permitted = macros(*level.compiler_flags) - macros()
    assert "AVX2" in permitted
    names = {LINUX_NAMES.get(name, name.lower()) for name in permitted}
    assert names <= level.cpu_flags


def test_the_sources_with_tiles_compile_for_amx() -> None:
    """Other tests emulate tiles, whose real intrinsics are statements and not expressions."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    sources = [path for path in SOURCES.rglob("*.cpp") if (path.parent / "tiles.h").exists()]
    assert sources
    flags = [*LEVELS[0].compiler_flags, *FLAGS, "-fsyntax-only"]
    subprocess.run(["g++", *flags, *map(str, sources)], check=True, timeout=100)


def macros(*flags: str) -> set[str]:
    """Return the instruction sets that g++ announces as macros, such as AVX2."""
    command = ["g++", *flags, "-dM", "-E", "-x", "c++", "/dev/null"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^#define __([A-Z0-9_]+?)__ 1$", shown, re.MULTILINE))


def test_the_flags_of_this_machine_are_read() -> None:
    text = Path("/proc/cpuinfo").read_text()
    assert all(re.search(rf"\b{flag}\b", text) for flag in cpu_flags())
    assert cpu_flags()
