"""Fetches adapters from URLs, and keeps their files in a worker's store while they are read.

Every method except `progress` blocks.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.adapter_sources import BUCKETS, RemoteUrl, without_query
from shared.errors import AdapterRejected, SourceFailed, StoreFailed
from shared.guarded_fetch.pinned_connection import AddressCheck
from shared.guarded_fetch.web import fetch_over_http
from shared.store.adapters.fetch_progress import Phase, Staging
from worker.adapters.disk_store import AdapterStore
from worker.adapters.remote.allowed_urls import AllowedUrls
from worker.adapters.remote.archive import unpack
from worker.adapters.remote.buckets import Bucket
from worker.adapters.remote.budget import Budget
from worker.adapters.remote.new_file import write_new

TIME_LIMIT_S = 300.0
"""Maximum seconds to fetch an adapter."""
ARCHIVE, FILES = "archive", "files"
"""Names of the downloaded archive, and of the folder for the adapter's files."""


class Stager:
    """Fetches adapters' files into temporary folders of the store, and deletes these folders."""

    def __init__(
        self,
        store: AdapterStore,
        allowed: AllowedUrls,
        addresses: AddressCheck,
        *,
        max_bytes: int,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        """Create a stager that writes to `store`. `max_bytes` limits adapters and archives."""
        self._store = store
        self._allowed = allowed
        self._addresses = addresses
        self._max_bytes = max_bytes
        self._time_limit_s = time_limit_s
        self._running: dict[str, Budget] = {}
        """Budgets of the adapters that are being fetched or read, by source.

        Loader threads change it, and `progress` reads it on the event loop.
        """

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

        The block may move the folder. Otherwise the folder is deleted afterwards.

        Raises:
            AdapterRejected: the fetched adapter is malformed, too large or has the wrong SHA-256.
            SourceFailed: the URL isn't allowed or can't be read.
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
                    url, parse=self._allowed.redirect, check=self._addresses, budget=budget
                )
            else:
                bucket = Bucket(url, budget)
                if not bucket.is_archive:
                    bucket.copy_adapter(folder / FILES)
                    return
                pieces = bucket.pieces()
            self._unpack(url, pieces, folder, budget)
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
