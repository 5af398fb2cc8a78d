"""The benchmarks of this checkout with the code of another one."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.lab.bench.servers.checkouts import MEASURED, benchmarks_of
from shared.errors import SettingsError

PRINT_SOURCES = "import shared, ops; print(shared.MARK, ops.__file__)"


def test_the_code_is_that_of_the_other_checkout(tmp_path: Path) -> None:
    for name in MEASURED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MARK = 'other'\n")
    with benchmarks_of(tmp_path) as root:
        command = [sys.executable, "-c", PRINT_SOURCES]
        printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        assert printed.stdout.split() == ["other", str(root / "ops" / "__init__.py")]


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--baseline"), benchmarks_of(tmp_path):
        pass
