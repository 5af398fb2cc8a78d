"""The native library: the level that a CPU gets, compilation, caching, and missing compilers."""

import gc
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from shared.settings import WorkerSettings
from worker import process
from worker.kernels.cpu import build, levels
from worker.kernels.cpu.build import (
    FLAGS,
    NATIVE,
    SOURCES,
    NotCompiled,
    compile_library,
    load_library,
)
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
from worker.kernels.pick import pick_kernels

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_forced_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        pytest.skip("needs a C++ compiler")
    return found


@pytest.fixture
def source(tmp_path: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny source that replaces the kernels' sources, for a compiler that is there."""
    source = tmp_path / "src" / "answer.cpp"
    source.parent.mkdir()
    source.write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setattr(build, "SOURCES", source.parent)
    return source


@pytest.fixture
def calls(tmp_path: Path, compiler: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for each compiler call other than `--version`."""
    log = tmp_path / "calls"
    log.touch()
    wrapper = tmp_path / "bin" / "g++"
    wrapper.parent.mkdir()
    logged = f'[ "$1" = --version ] || echo "$@" >> {log}'
    wrapper.write_text(f'#!/bin/sh\n{logged}\nexec {compiler} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent), prepend=":")
    return log


def libraries(cache: Path) -> list[Path]:
    return list((cache / "kernels").iterdir())


def test_without_a_compiler_torch_computes_and_a_warning_is_logged_where_kernels_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotCompiled, match=r"no compiled kernels .* no C\+\+ compiler"):
        load_library(tmp_path)
    with capture_logs() as logs:
        assert pick_kernels(CPU, torch.float16, tmp_path).name == "torch"
        assert pick_kernels(torch.device("meta"), torch.float32, tmp_path).name == "torch"
        assert logs == [], "there are no native kernels for these tensors"
        assert pick_kernels(CPU, torch.bfloat16, tmp_path).name == "torch"
    assert [line["event"] for line in logs] == ["native_kernels_unavailable"]
    assert "C++ compiler" in logs[0]["reason"]


def test_a_compiled_library_is_used_again_until_the_sources_change(
    tmp_path: Path, source: Path, calls: Path
) -> None:
    cache = tmp_path / "cache"
    assert load_library(cache).answer() == 42
    compiled = calls.read_text()
    assert "answer.cpp" in compiled
    assert load_library(cache).answer() == 42
    assert calls.read_text() == compiled
    assert len(libraries(cache)) == 1
    source.write_text('extern "C" int answer() { return 43; }\n')
    assert load_library(cache).answer() == 43
    assert len(libraries(cache)) == 2


def test_the_compilation_reports_how_many_files_are_done(tmp_path: Path, source: Path) -> None:
    reports: list[tuple[int, int]] = []
    for _ in range(2):  # the second call finds the library
        load_library(tmp_path / "cache", lambda *numbers: reports.append(numbers))
    assert reports == [(0, 1), (1, 1)]


def test_the_forced_level_is_compiled_with_its_own_instructions(
    tmp_path: Path, source: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = usable_levels(cpu_flags())[-1]
    load_library(tmp_path / "cache")
    assert NATIVE in calls.read_text()
    calls.write_text("")
    monkeypatch.setenv(VARIABLE, level.name)
    assert load_library(tmp_path / "cache").answer() == 42
    assert " ".join(level.compiler_flags) in calls.read_text()
    assert NATIVE not in calls.read_text()
    assert len(libraries(tmp_path / "cache")) == 2


def test_a_forced_level_that_the_cpu_cannot_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "cpu_flags", lambda: LEVELS[-1].cpu_flags)
    monkeypatch.setenv(VARIABLE, LEVELS[0].name)
    with pytest.raises(LevelUnavailable, match=r"LORIKEET_CPU_LEVEL=amx: .*; use auto, avx2"):
        pick_kernels(CPU, torch.float32, tmp_path)


def test_several_processes_at_once_get_one_library(tmp_path: Path, source: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from worker.kernels.cpu import build; "
        f"build.SOURCES = Path({str(source.parent)!r}); sys.stdin.read(); "
        f"print(build.load_library(Path({str(tmp_path)!r})).answer())"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(4)]
    for each in started:  # closing stdin lets all processes continue at the same time
        each.stdin.close()
        each.stdin = None
    assert [each.communicate()[0] for each in started] == ["42\n"] * 4
    assert [path.suffix for path in libraries(tmp_path)] == [".so"]


def test_the_error_has_the_compilers_first_line_or_the_folder_that_cannot_be_written(
    tmp_path: Path, source: Path
) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(NotCompiled, match=f"{tmp_path}/file"):
        load_library(tmp_path / "file")
    source.write_text("#error not today\n#error nor tomorrow\n")
    with pytest.raises(NotCompiled, match=r"g\+\+ failed: .*not today") as caught:
        load_library(tmp_path / "cache")
    assert "tomorrow" not in str(caught.value)
    assert libraries(tmp_path / "cache") == []


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not a library" * 1000], ids=len)
def test_a_broken_library_is_compiled_again(tmp_path: Path, source: Path, content: bytes) -> None:
    load_library(tmp_path)
    (path,) = libraries(tmp_path)
    path.unlink()  # the loaded library keeps its inode
    path.write_bytes(content)
    assert load_library(tmp_path).answer() == 42


@pytest.fixture
def prebuilt(
    tmp_path: Path, source: Path, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """Libraries for two levels that this CPU can run, the faster first. Their answers are 0 and 1.

    The kernels that would be compiled here answer 42.
    """
    slower = levels.LEVELS[-1]
    if slower not in usable_levels(cpu_flags()):
        pytest.skip("needs an x86 CPU with AVX2")
    both = (replace(slower, name="faster"), slower)
    monkeypatch.setattr(levels, "LEVELS", both)
    compiled = source.read_text()
    paths = [tmp_path / "package" / f"{level.name}.so" for level in both]
    for number, (level, path) in enumerate(zip(both, paths, strict=True)):
        source.write_text(f'extern "C" int answer() {{ return {number}; }}\n')
        compile_library(compiler, level.compiler_flags, path)
    source.write_text(compiled)
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "package")
    return paths


def test_the_packages_fastest_library_that_can_be_used_is_loaded_without_a_compiler(
    tmp_path: Path, prebuilt: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        fastest = prebuilt[0].rename(tmp_path / "fastest")
        assert load_library(tmp_path / "cache").answer() == 1
        prebuilt[0].write_bytes(b"\x7fELF")
        assert load_library(tmp_path / "cache").answer() == 1
        fastest.rename(prebuilt[0])
        assert load_library(tmp_path / "cache").answer() == 0
        assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(build, "cpu_flags", lambda: cpu_flags() - {"avx2"})
    assert load_library(tmp_path / "cache").answer() == 42


def test_the_forced_level_is_loaded_even_if_a_faster_one_is_usable(
    tmp_path: Path, prebuilt: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, prebuilt[1].stem)
    assert load_library(tmp_path / "cache").answer() == 1
    prebuilt[1].unlink()
    assert load_library(tmp_path / "cache").answer() == 42


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


@given(MACHINES, st.sampled_from(LEVELS))
def test_a_level_can_be_used_and_forced_exactly_if_the_cpu_has_all_its_features(
    machine: set[str], level: Level
) -> None:
    usable = usable_levels(machine)
    assert usable == [level for level in LEVELS if not level.cpu_flags - machine]
    assert usable[-1:] == ([LEVELS[-1]] if usable else []), "the slowest one"
    with mock.patch.dict(os.environ, {VARIABLE: level.name}):
        if level in usable:
            assert forced_level(machine) is level
        else:
            with pytest.raises(LevelUnavailable, match=f"{VARIABLE}={level.name}: this CPU can't"):
                forced_level(machine)


def test_by_default_no_level_is_forced_and_the_setting_has_all() -> None:
    for value in ("", AUTO):
        with mock.patch.dict(os.environ, {VARIABLE: value}):
            assert forced_level(LEVELS[0].cpu_flags) is None
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
@pytest.mark.usefixtures("compiler")
def test_the_compiler_may_use_only_features_that_are_checked(level: Level) -> None:
    permitted = macros(*level.compiler_flags) - macros()
    assert "AVX2" in permitted
    names = {LINUX_NAMES.get(name, name.lower()) for name in permitted}
    assert names <= level.cpu_flags


@pytest.mark.usefixtures("compiler")
@pytest.mark.slow
def test_the_sources_with_tiles_compile_for_amx() -> None:
    """Other tests emulate tiles, whose real intrinsics are statements and not expressions."""
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


def test_the_flag_is_the_level_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "auto")  # restores it later
    for name in ("_check", "share_cores", "use_huge_pages"):
        monkeypatch.setattr(process, name, lambda *_: None)
    loader = SimpleNamespace(load_served=lambda *_: os.environ[VARIABLE])
    monkeypatch.setitem(sys.modules, "worker.startup.load_model", loader)
    settings = WorkerSettings(model="m", cpu_level="avx2")
    assert process._load_native(settings, lambda *_: None) == "avx2"
    gc.unfreeze()
