"""The libraries of a wheel that are compared with a g++ build."""

import zipfile
from pathlib import Path

import pytest

from ops.lab.bench.prebuilt import LIBRARIES, unpack_libraries
from ops.packaging.wheel import PREBUILT, ROOT
from shared.errors import SettingsError
from worker.kernels.cpu.levels import cpu_flags, usable_levels


def test_the_fastest_library_of_the_wheel_is_found(tmp_path: Path) -> None:
    assert PREBUILT.relative_to(ROOT).as_posix() + "/" == LIBRARIES
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
    zipfile.ZipFile(tmp_path / "pure.whl", "w").close()
    for name, reason in (
        ("no", "make wheel"),
        ("missing", "make wheel"),
        ("pure", "no compiled kernels for this CPU"),
    ):
        with pytest.raises(SettingsError, match=reason):
            unpack_libraries(tmp_path / f"{name}.whl", tmp_path / name)
