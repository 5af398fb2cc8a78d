"""llama.cpp as a peer: the folder that it needs, and a program that fails."""

from pathlib import Path

import pytest

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.servers.llama_cpp import check_llama_cpp, run_program
from shared.errors import SettingsError


def test_a_folder_without_the_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--llama .*llama-server doesn't exist.*benchmarks.md"):
        check_llama_cpp(tmp_path)


def test_a_failed_program_is_reported_with_its_output() -> None:
    with pytest.raises(MeasurementFailed, match=r"sh ended with 3:\nno such model"):
        run_program("sh", "-c", "echo no such model; exit 3")
