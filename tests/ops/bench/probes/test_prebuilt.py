"""The comparison of a wheel's compiled kernels with a g++ build: its figures and its errors."""

import zipfile
from pathlib import Path

import pytest

from ops.bench.probes.prebuilt.finding import (
    LIBRARIES,
    Pair,
    prebuilt_finding,
    unpack_libraries,
)
from ops.packaging.wheel import PREBUILT, ROOT
from shared.errors import SettingsError
from worker.kernels.cpu.levels import cpu_flags, usable_levels


def pairs(*ratios: float) -> list[Pair]:
    return [Pair(prebuilt={"step": 20 * ratio}, compiled={"step": 20.0}) for ratio in ratios]


def test_equal_builds_give_an_interval_that_includes_1() -> None:
    ratios = [0.97, 0.98, 0.99, 0.99, 1.0, 1.0, 1.01, 1.02, 1.03, 1.2]
    (line,) = prebuilt_finding(pairs(*ratios), "avx2").says
    assert line == (
        "step: the wheel's avx2 kernels 20.00 ms, g++'s 20.00 ms; ratio 1.000, "
        "95 % interval 0.980 to 1.030 includes 1"
    )


def test_a_slower_build_gives_an_interval_that_excludes_1() -> None:
    (line,) = prebuilt_finding(pairs(*[1.05 + n / 100 for n in range(10)]), "avx2").says
    assert "interval 1.060 to 1.130 excludes 1" in line


def test_the_fastest_library_of_the_wheel_is_found(tmp_path: Path) -> None:
    levels = usable_levels(cpu_flags())
    if not levels:
        pytest.skip("needs an x86 CPU with AVX2")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        for level in levels:
            archive.writestr(f"{LIBRARIES}{level.name}.so", level.name)
    assert unpack_libraries(tmp_path / "a.whl", tmp_path / "libraries") == levels[0].name
    unpacked = {path.stem: path.read_text() for path in (tmp_path / "libraries").iterdir()}
    assert unpacked == {level.name: level.name for level in levels}


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "no.whl").write_text("no")
    with pytest.raises(SettingsError, match="make wheel"):
        unpack_libraries(tmp_path / "no.whl", tmp_path / "1")
    with pytest.raises(SettingsError, match="make wheel"):
        unpack_libraries(tmp_path / "missing.whl", tmp_path / "2")
    zipfile.ZipFile(tmp_path / "pure.whl", "w").close()
    with pytest.raises(SettingsError, match="no compiled kernels for this CPU"):
        unpack_libraries(tmp_path / "pure.whl", tmp_path / "3")


def test_the_folder_of_the_libraries_is_the_packages() -> None:
    assert PREBUILT.relative_to(ROOT).as_posix() + "/" == LIBRARIES
