"""Reads adapters from buckets of S3 or Google Cloud Storage, with fsspec.

The environment variables that the operator has set determine the servers and the credentials.
Clients choose only the bucket and the path.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import structlog

from shared.adapter_sources import RemoteUrl
from shared.errors import AdapterRejected, ErrorCode, SourceFailed
from shared.protocol.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from worker.adapters.remote.archive import is_file_of_adapter, max_bytes_of
from worker.adapters.remote.budget import CHUNK_BYTES, Budget
from worker.adapters.remote.new_file import write_new

log = structlog.get_logger()

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
"""Endings of the names of archives. Every other path of a bucket is a folder."""
PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
"""Packages that fsspec needs, by scheme."""
EXTRAS = {"s3": "s3", "gs": "gcs"}
"""Extra of the Lorikeet package that installs the scheme's entry in `PACKAGES`, by scheme."""
MAX_LISTED = 1000
"""Largest number of objects in the folder of an adapter."""
_TIMES = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"use_listings_cache": False, "config_kwargs": _TIMES},
    "gs": {"use_listings_cache": False},
}


class Stamp(NamedTuple):
    """Properties of an object that change when the object is replaced."""

    num_bytes: int
    tags: tuple[str, ...]


def missing_package(scheme: str) -> str | None:
    """Return a message if URLs with this scheme need a package that isn't installed."""
    package = PACKAGES.get(scheme)
    if package is None or find_spec(package) is not None:
        return None
    return (
        f"{scheme}:// needs the package {package} at the workers: pip install "
        f"'lorikeet-serve[{EXTRAS[scheme]}]'"
    )


class Bucket:
    """The objects at one URL of a bucket."""

    def __init__(self, url: RemoteUrl, budget: Budget) -> None:
        """Connect to the store. Raises SourceFailed if this fails, or if a package is missing."""
        if message := missing_package(url.scheme):
            raise SourceFailed(ErrorCode.UNAVAILABLE, message)
        self._url = url
        self._budget = budget
        self._path = f"{url.host}{url.path}"
        self._files = _guarded(url, lambda: _filesystem(url.scheme))

    @property
    def is_archive(self) -> bool:
        """Whether the URL names an archive. Otherwise it names a folder."""
        return self._path.endswith(ARCHIVES)

    def copy_adapter(self, folder: Path) -> None:
        """Copy the files of an adapter from the folder at the URL to `folder`.

        Raises:
            AdapterRejected: the folder changed during the copy, an object is too large, or the URL
                gives a SHA-256, which a folder doesn't have.
            SourceFailed: the folder has no adapter, or it can't be read.
        """
        if self._url.sha256:
            raise AdapterRejected("a folder has no SHA-256; pack it, or leave out #sha256=")
        before = self._adapter_files()
        self._budget.expect(sum(stamp.num_bytes for stamp in before.values()))
        for name in before:
            write_new(folder / name, self.pieces(name), max_bytes=max_bytes_of(name))
        if self._adapter_files() != before:
            raise AdapterRejected("it was changed while it was fetched; load it again")

    def pieces(self, name: str = "") -> Iterator[bytes]:
        """Yield the bytes of the object `name` in the folder, or of the archive if `name` is empty.

        Raises:
            AdapterRejected: the object is too large.
            SourceFailed: the object can't be read.
        """
        path = f"{self._path}/{name}" if name else self._path
        file = _guarded(self._url, lambda: self._files.open(path, "rb", block_size=8 * CHUNK_BYTES))
        if not name:
            self._budget.expect(file.size)
        try:
            while piece := _guarded(self._url, lambda: file.read(CHUNK_BYTES)):
                self._budget.receive(len(piece))
                yield piece
        finally:
            file.close()

    def _adapter_files(self) -> dict[str, Stamp]:
        """Return the stamps of the adapter's files. Raises SourceFailed if there are none."""
        listed = _guarded(self._url, lambda: self._files.ls(self._path, detail=True))
        if len(listed) > MAX_LISTED:
            raise AdapterRejected(f"its folder has more than {MAX_LISTED} objects")
        found = {}
        for entry in listed:
            is_below = entry["name"] != self._path and entry["type"] == "file"
            if is_below:
                found[PurePosixPath(entry["name"]).name] = _stamp(entry)
        if not found:
            raise _missing(self._url)
        found = {name: stamp for name, stamp in found.items() if is_file_of_adapter(name)}
        if not {CONFIG_FILE, WEIGHTS_FILE} & found.keys():
            message = f"the folder has neither {CONFIG_FILE} nor {WEIGHTS_FILE}"
            raise SourceFailed(ErrorCode.SOURCE_NOT_FOUND, message)
        return found


def _filesystem(scheme: str) -> Any:
    import fsspec  # the base installation, which simulated workers need, doesn't contain it

    return fsspec.filesystem(scheme, **_OPTIONS[scheme])


def _stamp(entry: Mapping[str, Any]) -> Stamp:
    tags = (entry.get(name) for name in ("ETag", "etag", "LastModified", "updated"))
    return Stamp(int(entry.get("size") or 0), tuple(map(str, tags)))


def _guarded(url: RemoteUrl, call: Any) -> Any:
    """Return the result of a call of fsspec. Convert the call's errors to SourceFailed."""
    try:
        return call()
    except FileNotFoundError:
        raise _missing(url) from None
    except Exception as error:  # the clients of the stores raise errors of their HTTP libraries
        # The text may contain addresses of the operator's network, so clients must not get it.
        log.warning("bucket_failed", url=url.address, error=repr(error))
        raise SourceFailed(
            ErrorCode.UNAVAILABLE,
            f"the object store can't be reached, or it refuses the workers' credentials "
            f"({type(error).__name__})",
        ) from error


def _missing(url: RemoteUrl) -> SourceFailed:
    return SourceFailed(ErrorCode.SOURCE_NOT_FOUND, f"nothing exists at {url.address}")
