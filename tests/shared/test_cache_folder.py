"""Errors while writing to the cache folder say what to do."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.cache_folder import cache_folder, writing_to_cache
from shared.errors import SettingsError

NO_HOME = """
import os
from shared.cache_folder import cache_folder
os.setuid(54321)
cache_folder()
"""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left (os error 28)"),
    ],
)
def test_a_full_disk_is_named(error: Exception) -> None:
    with pytest.raises(SettingsError) as caught, writing_to_cache(Path("/cache")):
        raise error
    assert str(caught.value).startswith("the disk of /cache is full (")
    assert str(caught.value).endswith("make room, or set XDG_CACHE_HOME to another folder")


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    message = r"file/cache can't be written \(Not a directory\)"
    with pytest.raises(SettingsError, match=message), writing_to_cache(folder):
        folder.mkdir()


def test_other_errors_are_not_changed() -> None:
    with pytest.raises(ValueError, match="other"), writing_to_cache(Path("/cache")):
        raise ValueError("other")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a home")
def test_a_user_without_a_home_folder_is_told_to_name_a_cache() -> None:
    env = {n: value for n, value in os.environ.items() if n not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", NO_HOME], capture_output=True, text=True, env=env)
    message = "SettingsError: this user has no home folder for the cache: set XDG_CACHE_HOME"
    assert message in done.stderr


def test_the_variable_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lorikeet"
