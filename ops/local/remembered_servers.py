"""Remembers the servers that commands use: those of `lorikeet login` and of running `lorikeet up`s.

Each server has a file that only this user can read, because the file may have an API key. The
newest file wins. The file of an `up` is locked while it runs, so that readers ignore the file of a
killed one.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import SettingsError
from shared.user_folders import user_folder

VARIABLE = "XDG_CONFIG_HOME"
LOGIN_FILE, UP_PREFIX = "login.json", "up-"
"""Name of the file of `lorikeet login`, and the start of the names of the others: `up-PID.json`."""
LOGIN, UP = "lorikeet login", "lorikeet up"


@dataclass(frozen=True, slots=True)
class RememberedServer:
    """A server that commands use if no other one is named."""

    url: str
    api_key: str | None = field(repr=False)
    origin: str
    """Command that remembered it: `LOGIN` or `UP`."""
    pid: int | None
    """Process of the `lorikeet up`; None for a login."""


def config_folder() -> Path:
    """Return `$XDG_CONFIG_HOME/lorikeet`, or `~/.config/lorikeet` if the variable isn't set.

    Raises:
        SettingsError: the variable isn't set, and this user has no home folder.
    """
    return user_folder(
        VARIABLE,
        ".config",
        without_home=f"to remember servers in: set {VARIABLE} to a folder that can be written, or "
        "name the server with --url or LORIKEET_URL",
    )


def remembered_servers() -> list[RememberedServer]:
    """Return the remembered servers. Commands use the first one."""
    found: list[tuple[int, RememberedServer]] = []
    with suppress(OSError, SettingsError):
        for path in config_folder().glob("*.json"):
            with suppress(OSError, ValueError, KeyError, TypeError), path.open() as file:
                if path.name == LOGIN_FILE or _is_locked(file.fileno()):
                    written_ns = os.fstat(file.fileno()).st_mtime_ns
                    content = json.load(file)
                    found.append((written_ns, _server(path.name, content)))
    return [server for _, server in sorted(found, key=lambda pair: pair[0], reverse=True)]


def running_servers() -> list[RememberedServer]:
    """Return the servers of this user's running `lorikeet up`s, newest first."""
    return [server for server in remembered_servers() if server.origin == UP]


def remember_login(url: str, api_key: str | None) -> Path:
    """Let commands use the server at `url` with this key. Return the file that has both.

    Raises:
        SettingsError: the file can't be written.
    """
    path = config_folder() / LOGIN_FILE
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        os.close(_written(partial, url, api_key))
        partial.replace(path)
    except OSError as error:
        raise SettingsError(f"can't write {path}: {error.strerror}") from None
    return path


def forget_login() -> str | None:
    """Forget the server of `lorikeet login`, and return its URL; None if there was none.

    Raises:
        SettingsError: the file can't be deleted.
    """
    path = config_folder() / LOGIN_FILE
    url = next((each.url for each in remembered_servers() if each.origin == LOGIN), None)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"can't delete {path}: {error.strerror}") from None
    return url


@contextmanager
def remembered_up(url: str, api_key: str | None) -> Iterator[None]:
    """Let commands use the server of this process during the block.

    Nothing is remembered if this user has no folder for configuration.
    """
    try:
        _remove_stale()
        path = config_folder() / f"{UP_PREFIX}{os.getpid()}.json"
        file = _written(path, url, api_key)
    except (OSError, SettingsError):
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _server(file_name: str, content: dict[str, Any]) -> RememberedServer:
    """Return the server in the file `file_name`."""
    is_login = file_name == LOGIN_FILE
    return RememberedServer(
        url=str(content["url"]),
        api_key=content.get("api_key") or None,
        origin=LOGIN if is_login else UP,
        pid=None if is_login else int(Path(file_name).stem.removeprefix(UP_PREFIX)),
    )


def _written(path: Path, url: str, api_key: str | None) -> int:
    """Write and lock a new file that only this user can read. Return the open file."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.write(file, json.dumps({"url": url, "api_key": api_key}).encode())
    return file


def _remove_stale() -> None:
    """Delete the files of killed `lorikeet up`s."""
    for path in config_folder().glob(f"{UP_PREFIX}*.json"):
        with suppress(OSError), path.open() as file:
            if not _is_locked(file.fileno()):
                path.unlink(missing_ok=True)


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
