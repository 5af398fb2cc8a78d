"""Folders of workers that were killed are deleted."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from worker.engine_vllm.adapters import scratch_folder


def test_only_folders_of_processes_that_have_ended_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [tmp_path / f"lorikeet-vllm-{pid}-x" for pid in (ended.pid, os.getpid())]
    for folder in left:
        folder.mkdir()
    own = scratch_folder()
    assert own.is_dir()
    assert [folder.exists() for folder in left] == [False, True]
