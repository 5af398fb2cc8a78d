"""Copies of adapters' files on this machine, so that a version outlives its source.

People replace an adapter by overwriting its folder. The old weights are still needed by rollbacks
and by jobs that were accepted earlier. Both read the old version's copy. Each copy is a folder that
is named after the version's digest. An atomic rename puts the complete copy in place.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from shared.cache_folder import write_problem
from shared.errors import SettingsError, StoreFailed
from shared.protocol.ids import AdapterVersion, UploadId

_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".new-"
_VERSION_FILE = ".version"
"""Name of a file in each copy of an uploaded or fetched adapter. It contains the version id."""
UNFINISHED_S = 3600
"""Age in seconds at which an unfinished copy is deleted."""

log = structlog.get_logger()

Value = Callable[[str], int]
"""Function that returns the value of a copy, given the digest of its version.

Copies with the lowest values are deleted first. Of copies with equal values, the least recently
used one is deleted first."""


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """A copy of the files of one version."""

    digest: str
    num_bytes: int
    used_s: float


class AdapterStore:
    """A folder of copies that processes share. All methods block, and may run on any thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Create the folder, for this user only. Raises SettingsError if it isn't writable."""
        self._folder = folder
        self._max_bytes = max_bytes
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            with tempfile.TemporaryFile(dir=folder):
                pass
            self._remove_unfinished()
        except OSError as error:
            raise SettingsError(_problem(folder, error)) from None

    def folder_of(self, digest: str) -> Path | None:
        """Return the folder of a version's copy, or None if there is no copy.

        Mark the copy as used.
        """
        folder = self._folder / digest
        if not _DIGEST.fullmatch(digest) or not folder.is_dir():
            return None
        try:
            os.utime(folder)
        except FileNotFoundError:  # another process has deleted it
            return None
        return folder

    def keep(self, digest: str, files: Sequence[Path]) -> None:
        """Copy a version's files into the store, unless the store already has a copy.

        Raises:
            StoreFailed: the files can't be copied.
        """
        assert _DIGEST.fullmatch(digest)
        if self.folder_of(digest):
            return
        unfinished = None
        try:
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._folder))
            for file in files:
                shutil.copyfile(file, unfinished / file.name)
            unfinished.rename(self._folder / digest)
        except OSError as error:
            if unfinished:
                shutil.rmtree(unfinished, ignore_errors=True)
            if not self.folder_of(digest):  # else another process has made the copy
                raise StoreFailed(_problem(self._folder, error)) from None

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Create and yield an empty folder, and delete it when the context ends.

        Raises:
            StoreFailed: the folder can't be created.
        """
        try:
            folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._folder))
        except OSError as error:
            raise StoreFailed(_problem(self._folder, error)) from None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def staging(self, upload: UploadId) -> Path:
        """Return the folder for the files of an upload while this process reads them."""
        return self._folder / f"{_UNFINISHED}{upload}-{os.getpid()}"

    def adopt(self, version: AdapterVersion, digest: str, staged: Path) -> None:
        """Make the folder `staged` the copy of a version, unless the version already has a copy.

        The folder is only renamed. Its files were written to the page cache and the kernel
        writes them to the disk later, so that no request waits for the disk.

        Raises:
            StoreFailed: the folder can't be renamed.
        """
        assert _DIGEST.fullmatch(digest)
        if self.folder_of(digest):
            return
        try:
            (staged / _VERSION_FILE).write_text(version)
            staged.rename(self._folder / digest)
        except OSError as error:
            if not self.folder_of(digest):  # else another process has made the copy
                raise StoreFailed(_problem(self._folder, error)) from None

    def uploads(self, *, unused_s: float) -> dict[str, AdapterVersion]:
        """Return the versions of adopted copies that weren't used for `unused_s` s, by digest."""
        found = {}
        for copy in self.copies():
            file = self._folder / copy.digest / _VERSION_FILE
            if time.time() - copy.used_s >= unused_s:
                with suppress(FileNotFoundError):  # not adopted, or deleted by another process
                    found[copy.digest] = AdapterVersion(file.read_text())
        return found

    def discard(self, digest: str) -> None:
        """Delete a version's copy if there is one."""
        assert _DIGEST.fullmatch(digest)
        folder = self._folder / digest
        gone = self._folder / f"{_UNFINISHED}{digest}-{os.getpid()}"
        try:
            folder.rename(gone)  # so that no process reads half of it
        except OSError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def trim(self, value: Value) -> list[str]:
        """Delete copies until the rest fit into `max_bytes`, and return the deleted digests."""
        copies = sorted(self.copies(), key=lambda copy: (value(copy.digest), copy.used_s))
        excess = sum(copy.num_bytes for copy in copies) - self._max_bytes
        removed = []
        for copy in copies:
            if excess <= 0:
                break
            self.discard(copy.digest)
            removed.append(copy.digest)
            excess -= copy.num_bytes
        if removed:
            log.info("adapter_copies_removed", count=len(removed))
        return removed

    @property
    def is_too_large(self) -> bool:
        """Whether the copies exceed `max_bytes`."""
        return sum(copy.num_bytes for copy in self.copies()) > self._max_bytes

    def _remove_unfinished(self) -> None:
        """Delete copies that killed processes have left unfinished."""
        for folder in self._folder.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > UNFINISHED_S:
                    shutil.rmtree(folder, ignore_errors=True)

    def copies(self) -> list[DiskCopy]:
        """Return all copies."""
        found = []
        for folder in self._folder.iterdir():
            if _DIGEST.fullmatch(folder.name):
                try:
                    num_bytes = sum(file.stat().st_size for file in folder.iterdir())
                    found.append(DiskCopy(folder.name, num_bytes, folder.stat().st_mtime))
                except FileNotFoundError:  # another process has deleted it
                    continue
        return found


def _problem(folder: Path, error: OSError) -> str:
    named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)]
    if named and not any(path.is_relative_to(folder) for path in named):
        return f"can't copy {named[0]}: {error.strerror}"
    problem = write_problem(folder, error) or f"{folder} can't be written ({error})"
    return f"--adapter-store: {problem}; make room, or name another folder"
