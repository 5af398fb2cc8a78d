"""The folder in which `lorikeet up` keeps its data."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ops.local.data_folder import (
    NOTHING,
    PROBE_BYTES,
    data_folder,
    locked_folder,
    quick_digest,
)
from shared.errors import SettingsError
from shared.settings import WorkerSettings

SIZE = 2 << 20
HOLDER = """
import os, subprocess, sys
from pathlib import Path
from ops.local.data_folder import locked_folder
with locked_folder(Path(sys.argv[1])) as folder:
    subprocess.Popen(
        [sys.executable, "-c", "import sys; print('held', flush=True); sys.stdin.read()"],
        pass_fds=[folder.lock],
    )
    os.kill(os.getpid(), 9)
"""
"""Program whose child still holds the lock after the program was killed."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(SIZE))
    return folder


def test_each_pool_and_base_model_has_a_folder(model: Path) -> None:
    def folder(data_dir: str, base: Path | None = model, **settings: str) -> Path | None:
        worker = WorkerSettings(model=str(model), **settings)  # type: ignore[arg-type]
        return data_folder(Path(data_dir), worker, base)

    first = folder("/data")
    assert first is not None
    assert first.parent == Path("/data")
    assert folder("/data") == first
    others = [folder("/data", pool="b"), folder("/data", served_name="x y"), folder("/data", None)]
    (model / "config.json").write_text('{"changed": 1}')
    assert len({first, *others, folder("/data")}) == 5
    assert folder(str(NOTHING)) is None


@pytest.mark.parametrize("position", [0, SIZE // 2, SIZE - 1])
def test_the_quick_digest_depends_on_the_weights_and_not_on_times(
    model: Path, position: int
) -> None:
    digest = quick_digest(model)
    os.utime(model / "model.safetensors", (1, 1))
    assert quick_digest(model) == digest
    weights = bytearray((model / "model.safetensors").read_bytes())
    start = max(0, position - SIZE // 10)
    weights[start : start + SIZE // 5] = os.urandom(SIZE // 5)
    (model / "model.safetensors").write_bytes(weights[:SIZE])
    assert quick_digest(model) != digest


def test_it_is_used_by_one_process_at_a_time_and_read_by_its_user_alone(tmp_path: Path) -> None:
    with (
        locked_folder(tmp_path / "a" / "b") as folder,
        pytest.raises(SettingsError, match=rf"\(process {os.getpid()}\) uses {folder.path}"),
        locked_folder(folder.path),
    ):
        pass
    with locked_folder(folder.path):
        assert folder.path.stat().st_mode & 0o777 == 0o700


def test_the_redis_of_a_killed_process_is_waited_for(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        assert holder.wait() == -signal.SIGKILL
        # Its child lives on until its input ends.
        threading.Timer(0.3, holder.stdin.close).start()
        with locked_folder(tmp_path) as folder:
            assert holder.stdin.closed
            assert folder.path == tmp_path


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            SettingsError, match=r"--data-dir: .*/file/data can't be written .*make room"
        ),
        locked_folder(tmp_path / "file" / "data"),
    ):
        pass


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PROBE_BYTES // 2, before[1]))
    try:
        with (
            pytest.raises(SettingsError, match=r"--data-dir: the disk of .* is full"),
            locked_folder(tmp_path),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
