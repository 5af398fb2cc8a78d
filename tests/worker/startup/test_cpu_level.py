"""A worker's `--cpu-level` reaches the kernels, which are loaded without its settings."""

import gc
import os
import sys
from types import SimpleNamespace

import pytest

from shared.settings import WorkerSettings
from worker import process
from worker.kernels.cpu.levels import VARIABLE


def test_the_flag_is_the_level_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "auto")  # restores it later
    for name in ("_check", "share_cores", "use_huge_pages"):
        monkeypatch.setattr(process, name, lambda *_: None)
    loader = SimpleNamespace(load_served=lambda _: os.environ[VARIABLE])
    monkeypatch.setitem(sys.modules, "worker.startup.load_model", loader)
    assert process._load_native(WorkerSettings(model="m", cpu_level="avx2")) == "avx2"
    gc.unfreeze()
