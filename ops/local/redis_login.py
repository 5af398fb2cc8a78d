"""Lets commands of the same user log in to the Redis of `lorikeet up`.

A file that only this user can read contains the URL with the password.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from ops.local.data_folder import users_data_folder
from shared.api_keys import is_loopback
from shared.errors import SettingsError
from shared.settings import PoolSettings

DEFAULT_REDIS_URL: str = PoolSettings.model_fields["redis_url"].default
"""URL of the Redis that commands such as `lorikeet queue` use by default."""
DEFAULT_PORT = 6379
"""Port that a Redis URL means if it doesn't contain a port."""


def url_file(port: int) -> Path:
    """Return the file with the URL of the Redis that listens on `port`.

    Raises:
        SettingsError: this user has no data folder.
    """
    return users_data_folder() / f"redis-{port}.url"


@contextmanager
def published(url: str) -> Iterator[None]:
    """Let commands of this user find the password of the Redis at `url` during the block.

    The URL is in a file that only this user can read. The file is locked while this process uses
    it, so that readers ignore the file of a killed process. Without a data folder, no file is
    written.
    """
    try:
        path = url_file(urlsplit(url).port or 0)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (OSError, SettingsError):
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.write(file, url.encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def with_login(url: str) -> str:
    """Return `url`, with the password added if it is the URL of this user's Redis."""
    with suppress(OSError, SettingsError, ValueError):
        parts = urlsplit(url)
        has_login = "@" in parts.netloc or parts.scheme != "redis"
        if is_loopback(parts.hostname or "") and not has_login:
            with url_file(parts.port or DEFAULT_PORT).open() as file:
                login = urlsplit(_read_locked(file)).netloc
            return parts._replace(netloc=login).geturl() if login else url
    return url


def _read_locked(file: TextIO) -> str:
    """Return the content of a file, or an empty string if no process holds its lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return file.read()
    return ""
