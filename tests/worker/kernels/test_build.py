"""Compilation and caching of the native library, and the reasons why it may be unavailable."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from worker.kernels.cpu import build, levels
from worker.kernels.cpu.build import NATIVE, NotCompiled, compile_library, load_library
from worker.kernels.cpu.levels import LEVELS, VARIABLE, LevelUnavailable, cpu_flags, usable_levels
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
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny source that replaces the kernels' sources."""
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
    put_compiler(
        tmp_path / "bin",
        f'[ "$1" = --version ] || echo "$@" >> {log}\nexec {compiler} "$@"\n',
        monkeypatch,
    )
    return log


def put_compiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install `script` as the first g++ on PATH."""
    folder.mkdir()
    (folder / "g++").write_text(f"#!/bin/sh\n{script}")
    (folder / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def libraries(cache: Path) -> list[Path]:
    return list((cache / "kernels").iterdir())


def test_without_a_compiler_torch_computes_and_a_warning_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotCompiled, match=r"no compiled kernels .* no C\+\+ compiler"):
        load_library(tmp_path)
    with capture_logs() as logs:
        assert pick_kernels(CPU, torch.bfloat16, tmp_path).name == "torch"
    assert [line["event"] for line in logs] == ["native_kernels_unavailable"]
    assert "C++ compiler" in logs[0]["reason"]


def test_tensors_without_native_kernels_use_torch_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with capture_logs() as logs:
        assert pick_kernels(CPU, torch.float16, tmp_path).name == "torch"
        assert pick_kernels(torch.device("meta"), torch.float32, tmp_path).name == "torch"
    assert logs == []


def test_a_compiled_library_is_used_again(tmp_path: Path, source: Path, calls: Path) -> None:
    assert load_library(tmp_path / "cache").answer() == 42
    compiled = calls.read_text()
    assert "answer.cpp" in compiled
    assert load_library(tmp_path / "cache").answer() == 42
    assert calls.read_text() == compiled
    assert len(libraries(tmp_path / "cache")) == 1


def test_other_sources_make_another_library(tmp_path: Path, source: Path, compiler: str) -> None:
    load_library(tmp_path)
    source.write_text('extern "C" int answer() { return 43; }\n')
    assert load_library(tmp_path).answer() == 43
    assert len(libraries(tmp_path)) == 2


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


def test_several_processes_at_once_get_one_library(
    tmp_path: Path, source: Path, compiler: str
) -> None:
    code = (
        "import sys; from pathlib import Path; from worker.kernels.cpu import build; "
        f"build.SOURCES = Path({str(source.parent)!r}); sys.stdin.read(); "
        f"print(build.load_library(Path({str(tmp_path)!r})).answer())"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(4)]
    for process in processes:  # closing stdin lets all processes continue at the same time
        process.stdin.close()
        process.stdin = None
    assert [process.communicate()[0] for process in processes] == ["42\n"] * 4
    assert [path.suffix for path in libraries(tmp_path)] == [".so"]


def test_the_first_line_of_the_compilers_message_is_the_reason(
    tmp_path: Path, source: Path, compiler: str
) -> None:
    source.write_text("#error not today\n#error nor tomorrow\n")
    with pytest.raises(NotCompiled, match=r"g\+\+ failed: .*not today") as caught:
        load_library(tmp_path)
    assert "tomorrow" not in str(caught.value)
    assert libraries(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, source: Path, compiler: str
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(NotCompiled, match=f"{tmp_path}/cache"):
        load_library(tmp_path / "cache")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not a library" * 1000], ids=len)
def test_a_broken_library_is_compiled_again(
    tmp_path: Path, source: Path, compiler: str, content: bytes
) -> None:
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


def test_the_packages_fastest_library_is_loaded_without_a_compiler(
    tmp_path: Path, prebuilt: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load_library(tmp_path / "cache").answer() == 0
    assert not (tmp_path / "cache").exists()


def test_if_a_library_is_missing_or_broken_the_next_level_is_loaded(
    tmp_path: Path, prebuilt: list[Path]
) -> None:
    prebuilt[0].unlink()
    assert load_library(tmp_path / "cache").answer() == 1
    prebuilt[0].write_bytes(b"\x7fELF")
    assert load_library(tmp_path / "cache").answer() == 1


def test_the_forced_level_is_loaded_even_if_a_faster_one_is_usable(
    tmp_path: Path, prebuilt: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, prebuilt[1].stem)
    assert load_library(tmp_path / "cache").answer() == 1
    prebuilt[1].unlink()
    assert load_library(tmp_path / "cache").answer() == 42


def test_libraries_for_other_cpus_are_not_loaded(
    tmp_path: Path, prebuilt: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "cpu_flags", lambda: cpu_flags() - {"avx2"})
    assert load_library(tmp_path / "cache").answer() == 42
