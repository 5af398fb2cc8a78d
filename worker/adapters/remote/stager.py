"""Fetches adapters from URLs into a worker's store. Every method blocks."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shared.adapter_sources import BUCKETS, RemoteUrl, without_query
from shared.errors import AdapterRejected, ErrorCode, SourceFailed, StoreFailed
from shared.protocol.uploads import CONFIG_FILE, WEIGHTS_FILE
from shared.store.adapters.staging import Phase, Staging
from worker.adapters.disk_store import AdapterStore
from worker.adapters.remote.allowed_urls import AllowedUrls
from worker.adapters.remote.archive import is_file_of_adapter, max_bytes_of, unpack
from worker.adapters.remote.buckets import Bucket, Stamp
from worker.adapters.remote.budget import Budget
from worker.adapters.remote.new_file import write_new
from worker.adapters.remote.pinned_connection import AddressCheck
from worker.adapters.remote.web import fetch_over_http

TIME_LIMIT_S = 300.0
"""Time in seconds in which an adapter must be fetched."""
ARCHIVE, FILES = "archive", "files"
"""Names in the folder of an adapter that is being fetched."""


class Stager:
    """Fetches the files of adapters for the time in which they are read."""

    def __init__(
        self,
        store: AdapterStore,
        allowed: AllowedUrls,
        addresses: AddressCheck,
        *,
        max_bytes: int,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        """Create a stager that writes to `store`.

        Args:
            store: its folder gets a folder for each adapter that is being fetched.
            allowed: the URLs that clients may name.
            addresses: checks the addresses of hosts.
            max_bytes: largest size of an adapter, packed and unpacked.
            time_limit_s: time in seconds in which an adapter must be fetched.
        """
        self._store = store
        self._allowed = allowed
        self._addresses = addresses
        self._max_bytes = max_bytes
        self._time_limit_s = time_limit_s
        self._running: dict[str, Budget] = {}

    def progress(self, source: str) -> Staging | None:
        """Return the progress of an adapter that is being fetched or read, else None."""
        budget = self._running.get(source)
        if budget is None:
            return None
        return Staging(
            source=without_query(source),
            phase=budget.phase,
            num_bytes=budget.num_bytes,
            total=budget.total,
        )

    @contextmanager
    def staged(self, source: str) -> Iterator[Path]:
        """Yield a folder with the files of the adapter at the URL `source`.

        The block may move the folder. What is left of it is deleted afterwards.

        Raises:
            AdapterRejected: the adapter can't be fetched. The subclass SourceFailed says why.
            StoreFailed: the files can't be written.
        """
        url = self._allowed.checked(source)
        budget = Budget(max_bytes=self._max_bytes, time_s=self._time_limit_s)
        self._running[source] = budget
        try:
            with self._store.unfinished() as folder:
                files = folder / FILES
                files.mkdir()
                self._fetch(url, folder, budget)
                budget.phase = Phase.CHECKING
                yield files
        finally:
            self._running.pop(source, None)

    def _fetch(self, url: RemoteUrl, folder: Path, budget: Budget) -> None:
        try:
            if url.scheme not in BUCKETS:
                pieces = fetch_over_http(
                    url, allow=self._allowed.allow, check=self._addresses, budget=budget
                )
                self._unpack(url, pieces, folder, budget)
                return
            bucket = Bucket(url, budget)
            if bucket.is_archive:
                self._unpack(url, bucket.pieces(), folder, budget)
            else:
                _copy_folder(url, bucket, folder / FILES, budget)
        except StoreFailed:
            raise
        except SourceFailed as error:
            raise SourceFailed(error.code, f"{url.address}: {error}") from None
        except AdapterRejected as error:
            raise AdapterRejected(f"{url.address}: {error}") from None

    def _unpack(
        self, url: RemoteUrl, pieces: Iterator[bytes], folder: Path, budget: Budget
    ) -> None:
        digest = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for piece in pieces:
                digest.update(piece)
                yield piece

        archive = folder / ARCHIVE
        write_new(archive, hashed())
        if url.sha256 not in (None, digest.hexdigest()):
            raise AdapterRejected(f"its SHA-256 is {digest.hexdigest()}, not {url.sha256}")
        unpack(archive, folder / FILES, budget)


def _copy_folder(url: RemoteUrl, bucket: Bucket, folder: Path, budget: Budget) -> None:
    """Copy the files of an adapter from a folder of a bucket."""
    if url.sha256:
        raise AdapterRejected("a folder has no SHA-256; pack it, or leave out #sha256=")
    before = _files_of_adapter(bucket.objects())
    budget.expect(sum(stamp.num_bytes for stamp in before.values()))
    for name in before:
        write_new(folder / name, bucket.pieces(name), max_bytes=max_bytes_of(name))
    if _files_of_adapter(bucket.objects()) != before:
        raise AdapterRejected("it was changed while it was fetched; load it again")


def _files_of_adapter(objects: Mapping[str, Stamp]) -> dict[str, Stamp]:
    found = {name: stamp for name, stamp in objects.items() if is_file_of_adapter(name)}
    if not {CONFIG_FILE, WEIGHTS_FILE} & found.keys():
        message = f"the folder has neither {CONFIG_FILE} nor {WEIGHTS_FILE}"
        raise SourceFailed(ErrorCode.SOURCE_NOT_FOUND, message)
    return found
