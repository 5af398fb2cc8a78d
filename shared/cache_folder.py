"""Folder for files that Lorikeet can create again, and messages for failed writes to it."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import SettingsError
from shared.user_folders import user_folder

VARIABLE = "XDG_CACHE_HOME"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Values of `errno` that mean that there is no space for more data."""
_RUST_ERROR = re.compile(r"^(?:.*: )?(.+) \(os error (\d+)\)")
"""Format of operating system errors in messages of Rust libraries, such as safetensors."""


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/lorikeet`, or `~/.cache/lorikeet` if the variable isn't set.

    Raises:
        SettingsError: the variable isn't set, and this user has no home folder.
    """
    return user_folder(
        VARIABLE,
        ".cache",
        without_home=f"for the cache: set {VARIABLE} to a folder that can be written",
    )


@contextmanager
def writing_to_cache(folder: Path) -> Iterator[None]:
    """Convert errors of writing to `folder`, such as a full disk, into a `SettingsError`.

    Raises:
        SettingsError: a file or folder couldn't be written. The message says what to do.
    """
    try:
        yield
    except Exception as error:
        problem = write_problem(folder, error)
        if problem is None:
            raise
        raise SettingsError(f"{problem}; make room, or set {VARIABLE} to another folder") from error


def write_problem(folder: Path, error: Exception) -> str | None:
    """Return the reason why `folder` can't be written to, or None if `error` has another cause."""
    if isinstance(error, OSError) and error.errno is not None:
        number, reason = error.errno, error.strerror or os.strerror(error.errno)
    elif found := _RUST_ERROR.match(str(error)):
        number, reason = int(found[2]), found[1]
    else:
        return None
    if number in _FULL:
        return f"the disk of {folder} is full ({reason})"
    return f"{folder} can't be written ({reason})"
