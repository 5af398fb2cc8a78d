"""Reads adapters from their sources, or from the copies on this machine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import structlog
import torch

from shared.adapter_sources import is_remote, without_query
from shared.errors import (
    AdapterNotServed,
    AdapterRejected,
    ErrorCode,
    JobError,
    JobFailed,
    SourceFailed,
    StoreFailed,
)
from shared.protocol.adapter_files import upload_of
from shared.protocol.adapters import Adapter
from shared.store.adapters.inspections import Findings, Inspection
from worker.adapters.disk_store import AdapterStore
from worker.adapters.remote.stager import Stager
from worker.adapters.source.allowed_sources import AdapterRoots
from worker.adapters.source.interface import CheckedAdapter
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import Digests, LoRAAdapter
from worker.lora.checkpoint.adapter_files import AdapterFiles, FileStamp
from worker.lora.checkpoint.header_report import check_size, report_headers
from worker.lora.checkpoint.pickled_weights import converted

log = structlog.get_logger()

MAX_CHECKED = 1024
"""Maximum number of copies that are remembered as checked."""
MAX_NAMES = 500
"""Maximum number of tensor names in each list of a report."""

Read = Callable[..., CheckedAdapter[LoRAAdapter]]
"""Reads one adapter from its files, with the arguments of `CheckpointReader.read`."""


class AdapterReader:
    """The `AdapterSource` of a worker. Every method blocks; never call it on the engine thread."""

    def __init__(
        self,
        read: Read,
        *,
        base: BaseModules,
        store: AdapterStore,
        roots: AdapterRoots,
        stager: Stager,
        dtype: torch.dtype,
        max_bytes: int,
    ) -> None:
        """Create a reader for one base model's adapters. Each may take `max_bytes` of memory."""
        self._read = read
        self._base = base
        self._store = store
        self.roots = roots
        self.stager = stager
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._checked: dict[str, tuple[list[FileStamp], Digests]] = {}
        """File stamps and digests of each copy that was checked in full, by version digest."""

    def read(self, name: str, source: str) -> CheckedAdapter[LoRAAdapter]:
        """Return the adapter at `source`, and keep a copy of its files.

        Raises:
            AdapterRejected: the adapter can't be served exactly, or a file changed during the read.
            StoreFailed: the copy can't be written.
        """
        with self._find(name, source) as files:
            adapter = self._read_source(name, files)
            self._keep_copy(adapter, files)
        return replace(adapter, weights=replace(adapter.weights, source=source))

    def read_version(self, entry: Adapter) -> CheckedAdapter[LoRAAdapter]:
        """Read the adapter at exactly the version of `entry`, from its copy or from its source.

        Raises:
            AdapterRejected: there is no copy, and the source now holds another version.
        """
        copy = self._store.folder_of(entry.digest)
        if copy is not None and (adapter := self._read_copy(entry, copy)):
            return adapter
        with self._find(entry.name, entry.source) as files:
            adapter = self._read_source(entry.name, files)
            try:
                self._keep_copy(adapter, files)
            except StoreFailed as error:
                log.warning("adapter_not_copied", version=entry.version, error=str(error))
        if adapter.weights.digest != entry.digest:
            raise AdapterRejected(
                f"{without_query(entry.source)} now holds {adapter.weights.version}, not "
                f"{entry.version}, and this worker has no copy of that version; load the adapter "
                "again"
            )
        return adapter

    def inspect(self, asked: Inspection) -> Findings:
        """Read and check an adapter that a client wants to load, and report on it. Never raises."""
        try:
            return self._inspect(asked)
        except JobFailed as failed:
            return Findings(error=failed.error)
        except StoreFailed as error:
            return Findings(error=JobError(code=ErrorCode.UNAVAILABLE, message=str(error)))
        except Exception as error:  # per inspection: files may be broken in unforeseen ways
            source = without_query(asked.source)
            log.exception("inspection_failed", source=source)
            return Findings(error=_rejected(f"{source!r} can't be read: {error!r}"))

    def _inspect(self, asked: Inspection) -> Findings:
        upload = upload_of(asked.source)
        place = self.roots.locate(asked.source) if upload is None else asked.source
        with ExitStack() as stack:
            try:
                files = stack.enter_context(self._files(place))
            except StoreFailed:
                raise
            except AdapterRejected as error:
                raise JobFailed(_not_fetched(place, error)) from None
            return self._check(asked.name, place, files)

    def _check(self, name: str, place: str, files: AdapterFiles) -> Findings:
        try:
            adapter = self._read_source(name, files)
            self._keep_copy(adapter, files)
        except StoreFailed:
            raise
        except (AdapterRejected, OSError) as error:
            return self._findings(files, error=_rejected(str(error)))
        return self._findings(files, adapter=adapter.registry_entry(place))

    @contextmanager
    def _find(self, name: str, source: str) -> Iterator[AdapterFiles]:
        with ExitStack() as stack:
            try:
                files = stack.enter_context(self._files(source))
            except StoreFailed:
                raise
            except AdapterRejected as error:
                shown = without_query(source)
                raise AdapterRejected(f"adapter {name} from {shown}: {error}") from None
            yield files

    @contextmanager
    def _files(self, source: str) -> Iterator[AdapterFiles]:
        """Yield the files at `source`. Files from a URL that remain after the block are deleted."""
        upload = upload_of(source)
        if upload is not None:
            yield AdapterFiles(self._store.staging(upload), source)  # fetched by the caller
        elif is_remote(source):
            with self.stager.staged(source) as folder:
                is_operators = self.roots.are_operators(source)
                yield AdapterFiles(folder, without_query(source), is_operators=is_operators)
        else:
            files = AdapterFiles.find(source, is_operators=self.roots.are_operators(source))
            if not files.are_pickled:
                yield files
                return
            with self._store.unfinished() as folder:
                yield converted(files, folder)

    def _read_source(self, name: str, files: AdapterFiles) -> CheckedAdapter[LoRAAdapter]:
        """Read an adapter from its source, after checking that it fits into memory."""
        try:
            check_size(files, dtype=self._dtype, max_bytes=self._max_bytes)
        except (AdapterRejected, OSError) as error:
            raise AdapterRejected(f"adapter {name} from {files.source}: {error}") from None
        return self._read(name, files)

    def _keep_copy(self, adapter: CheckedAdapter[LoRAAdapter], files: AdapterFiles) -> None:
        """Copy or move the adapter's files to the store. Raises AdapterRejected or StoreFailed."""
        weights = adapter.weights
        if upload_of(files.source) is not None or is_remote(files.source):
            self._record_checked(weights, files)
            self._store.adopt(weights.version, weights.digest, files.folder)
            return
        self._store.keep(weights.digest, files.paths)
        if files.have_changed():
            # If the copy mixes old and new files, its digest shows that when the copy is read.
            raise AdapterRejected(
                f"adapter {weights.name} from {files.source} was changed while it was read; load "
                "it again"
            )

    def _read_copy(self, entry: Adapter, folder: Path) -> CheckedAdapter[LoRAAdapter] | None:
        """Read the version of `entry` from its copy. Discard a damaged copy, and return None."""
        try:
            is_operators = self.roots.are_operators(entry.source)
            files = AdapterFiles(folder, is_operators=is_operators)
            adapter = self._read_unchanged(entry, files) or self._read_in_full(entry, files)
        except AdapterNotServed:  # other workers of this machine need the copy
            raise
        except AdapterRejected as error:
            log.warning("adapter_copy_unreadable", version=entry.version, error=str(error))
            self._discard(entry)
            return None
        if adapter.weights.digest != entry.digest:
            log.warning("adapter_copy_differs", version=entry.version, holds=adapter.weights.digest)
            self._discard(entry)
            return None
        return replace(adapter, weights=replace(adapter.weights, source=entry.source))

    def _read_in_full(self, entry: Adapter, files: AdapterFiles) -> CheckedAdapter[LoRAAdapter]:
        """Read a copy and check all its values, so that `_read_unchanged` needn't check them."""
        adapter = self._read(entry.name, files)
        weights = adapter.weights
        if weights.digest == entry.digest and not files.have_changed():
            self._record_checked(weights, files)
        return adapter

    def _record_checked(self, weights: LoRAAdapter, files: AdapterFiles) -> None:
        """Record that `files`, the store's copy of the adapter `weights`, were checked in full."""
        digests = Digests(weights.digest, weights.weights_digest)
        self._checked[weights.digest] = files.stamps, digests
        while len(self._checked) > MAX_CHECKED:
            self._checked.pop(next(iter(self._checked)), None)

    def _read_unchanged(
        self, entry: Adapter, files: AdapterFiles
    ) -> CheckedAdapter[LoRAAdapter] | None:
        """Read a copy if it was checked in full and hasn't changed since; otherwise return None."""
        stamps, digests = self._checked.get(entry.digest, (None, None))
        if stamps != files.stamps:
            return None
        adapter = self._read(entry.name, files, checked=digests)
        return None if files.have_changed() else adapter

    def _discard(self, entry: Adapter) -> None:
        self._checked.pop(entry.digest, None)
        self._store.discard(entry.digest)

    def _findings(
        self, files: AdapterFiles, *, adapter: Adapter | None = None, error: JobError | None = None
    ) -> Findings:
        found = report_headers(files, self._base)
        return Findings(
            adapter=adapter,
            error=error,
            source=_shown_place(files),
            num_tensors=len(found.matched) + len(found.unmatched),
            matched=found.matched[:MAX_NAMES],
            unmatched=found.unmatched[:MAX_NAMES],
            num_unmatched=len(found.unmatched),
            ranks=found.ranks,
            trained_on=found.trained_on,
        )


def _shown_place(files: AdapterFiles) -> str | None:
    """Return the URL or folder of an adapter for reports to clients; None for an upload."""
    if upload_of(files.source):
        return None
    return files.source if is_remote(files.source) else str(files.folder)


def _not_fetched(place: str, error: AdapterRejected) -> JobError:
    if isinstance(error, SourceFailed):
        code = error.code
    else:  # the hub doesn't provide it, or the archive is refused
        code = ErrorCode.ADAPTER_REJECTED if is_remote(place) else ErrorCode.SOURCE_NOT_FOUND
    return JobError(code=code, message=str(error), param="lora_path")


def _rejected(reason: str) -> JobError:
    return JobError(code=ErrorCode.ADAPTER_REJECTED, message=reason, param="lora_path")
