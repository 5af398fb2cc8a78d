"""Reads adapters for the engine, from where they lie or from the copies of this machine."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog
import torch

from shared.errors import AdapterRejected, ErrorCode, JobError, JobFailed, StoreFailed
from shared.store.inspections import Findings, Inspection
from shared.store.registry import Adapter
from worker.adapters.allowed_sources import AdapterRoots
from worker.adapters.disk_store import AdapterStore
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import Digests, LoRAAdapter
from worker.lora.checkpoint.adapter_entry import entry_of
from worker.lora.checkpoint.header_report import check_size, describe
from worker.lora.checkpoint.source import (
    CONFIG_FILE,
    TEMPLATE_FILES,
    WEIGHTS_FILE,
    adapter_file,
    adapter_folder,
    template_files,
)

log = structlog.get_logger()

MAX_NAMES = 500
"""Of tensors, in each list of what was found."""

Stamp = tuple[str, int, int, int, int]
"""What changes when a file is written to or replaced."""


class Read(Protocol):
    """As `worker.lora.checkpoint.adapter.read_adapter`, for one base and dtype."""

    def __call__(self, name: str, source: str, *, checked: Digests | None = None) -> LoRAAdapter:
        """The adapter of this name at `source`."""
        ...


class AdapterReader:
    """Everything blocks, and may be called on any thread but the engine's."""

    def __init__(
        self,
        read: Read,
        *,
        base: BaseModules,
        store: AdapterStore,
        roots: AdapterRoots,
        dtype: torch.dtype,
        max_bytes: int,
    ) -> None:
        """Read with `read`, for a pool of `dtype` that holds `max_bytes`."""
        self._read = read
        self._base = base
        self._store = store
        self.roots = roots
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._checked: dict[str, tuple[list[Stamp], Digests]] = {}
        """Copies that were read whole, by digest: their files then, and what those gave."""

    def read(self, name: str, source: str) -> LoRAAdapter:
        """The adapter at `source`, of whose files a copy is kept.

        Raises:
            AdapterRejected: it can't be served exactly, or is being written to.
            StoreFailed: no copy can be kept.
        """
        try:
            folder = adapter_folder(source)
            before = _stamps(folder)
            check_size(folder, dtype=self._dtype, max_bytes=self._max_bytes)
        except AdapterRejected as error:
            raise AdapterRejected(f"adapter {name} from {source}: {error}") from None
        adapter = self._read(name, str(folder))
        files = [adapter_file(folder, CONFIG_FILE), adapter_file(folder, WEIGHTS_FILE)]
        self._store.keep(adapter.digest, [*files, *template_files(folder)])
        if _stamps(folder) != before:
            # Should the copy be half of either, its digest gives that away when it is read.
            raise AdapterRejected(f"adapter {name} from {source} was changed while it was read")
        return replace(adapter, source=source)

    def read_version(self, entry: Adapter) -> LoRAAdapter:
        """Exactly this version: from its copy, or from its source if that still holds it.

        Raises:
            AdapterRejected: neither has it.
        """
        copy = self._store.folder_of(entry.digest)
        if copy is not None and (adapter := self._read_copy(entry, copy)):
            return adapter
        try:
            adapter = self.read(entry.name, entry.source)
        except StoreFailed as error:
            log.warning("adapter_not_copied", version=entry.version, error=str(error))
            adapter = self._read(entry.name, entry.source)
        if adapter.digest != entry.digest:
            raise AdapterRejected(
                f"{entry.source} holds {adapter.version} by now, not {entry.version}, and this "
                "worker has no copy of it; load the adapter again"
            )
        return adapter

    def inspect(self, asked: Inspection) -> Findings:
        """What a client would load, and whether it may; never raises."""
        try:
            return self._inspect(asked)
        except JobFailed as failed:
            return Findings(error=failed.error)
        except StoreFailed as error:
            return Findings(error=JobError(code=ErrorCode.UNAVAILABLE, message=str(error)))
        except Exception as error:  # per inspection: files may be wrong in ways nobody thought of
            log.exception("inspection_failed", source=asked.source)
            return Findings(error=_rejected(f"{asked.source!r} can't be read: {error!r}"))

    def _inspect(self, asked: Inspection) -> Findings:
        place = self.roots.locate(asked.source)
        try:
            folder = adapter_folder(place)
        except AdapterRejected as error:  # of a hub id
            raise JobFailed(
                JobError(code=ErrorCode.SOURCE_NOT_FOUND, message=str(error), param="lora_path")
            ) from None
        try:
            adapter = entry_of(self.read(asked.name, place), place)
        except StoreFailed:
            raise
        except (AdapterRejected, OSError) as error:
            return self._findings(folder, error=_rejected(str(error)))
        return self._findings(folder, adapter=adapter)

    def _read_copy(self, entry: Adapter, copy: Path) -> LoRAAdapter | None:
        try:
            adapter = self._read_untouched(entry, copy) or self._read_whole(entry, copy)
        except AdapterRejected as error:
            log.warning("adapter_copy_unreadable", version=entry.version, error=str(error))
            self._discard(entry)
            return None
        if adapter.digest != entry.digest:
            log.warning("adapter_copy_differs", version=entry.version, holds=adapter.digest)
            self._discard(entry)
            return None
        return replace(adapter, source=entry.source)

    def _read_whole(self, entry: Adapter, copy: Path) -> LoRAAdapter:
        before = _stamps(copy)
        adapter = self._read(entry.name, str(copy))
        if adapter.digest == entry.digest and _stamps(copy) == before:
            self._checked[entry.digest] = before, Digests(adapter.digest, adapter.weights_digest)
        return adapter

    def _read_untouched(self, entry: Adapter, copy: Path) -> LoRAAdapter | None:
        """The copy, if nobody has touched it since it was read whole."""
        stamps, digests = self._checked.get(entry.digest, (None, None))
        if stamps != _stamps(copy):
            return None
        adapter = self._read(entry.name, str(copy), checked=digests)
        return adapter if _stamps(copy) == stamps else None

    def _discard(self, entry: Adapter) -> None:
        self._checked.pop(entry.digest, None)
        self._store.discard(entry.digest)

    def _findings(
        self, folder: Path, *, adapter: Adapter | None = None, error: JobError | None = None
    ) -> Findings:
        found = describe(folder, self._base)
        return Findings(
            adapter=adapter,
            error=error,
            source=str(folder),
            num_tensors=len(found.matched) + len(found.unmatched),
            matched=found.matched[:MAX_NAMES],
            unmatched=found.unmatched[:MAX_NAMES],
            num_unmatched=len(found.unmatched),
            ranks=found.ranks,
            trained_on=found.trained_on,
        )


def _stamps(folder: Path) -> list[Stamp]:
    """Of the files that make the adapter; of those that are there."""
    names = {CONFIG_FILE, WEIGHTS_FILE}
    names |= {path.name for pattern in TEMPLATE_FILES for path in folder.glob(pattern)}
    stamps = []
    for name in sorted(names):
        with suppress(OSError):
            status = (folder / name).stat()
            times = status.st_mtime_ns, status.st_ctime_ns
            stamps.append((name, status.st_ino, status.st_size, *times))
    return stamps


def _rejected(reason: str) -> JobError:
    return JobError(code=ErrorCode.ADAPTER_REJECTED, message=reason, param="lora_path")
