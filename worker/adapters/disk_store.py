"""Copies of adapters' files on this machine, so that a version outlives its source.

People swap an adapter by writing over its folder. Jobs that were accepted before still run the old
weights, and so does a rollback; both read them here. A copy lies in a folder that is named by the
version's digest, and appears there in one piece.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from shared.errors import SettingsError, StoreFailed

_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".new-"
UNFINISHED_S = 3600
"""Longest that copying may take."""

log = structlog.get_logger()

Worth = Callable[[str], int]
"""How dear a digest is: those of the least worth go first, of equals the one unused for longest."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One version's files."""

    digest: str
    num_bytes: int
    used_s: float


class AdapterStore:
    """A folder of copies. Several processes may share it; all methods block, on any thread."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """Make the folder, for this user alone.

        Raises:
            SettingsError: it can't be written to.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            with tempfile.TemporaryFile(dir=folder):
                pass
            self._remove_unfinished()
        except OSError as error:
            raise SettingsError(f"--adapter-store: can't write to {folder}: {error}") from None

    def folder_of(self, digest: str) -> Path | None:
        """Where the files of this version are; None if there is no copy. Counts as its use."""
        folder = self._folder / digest
        if not _DIGEST.fullmatch(digest) or not folder.is_dir():
            return None
        try:
            os.utime(folder)
        except FileNotFoundError:  # another process needed the room
            return None
        return folder

    def keep(self, digest: str, files: Sequence[Path]) -> None:
        """Copy the files of a version, unless they are here.

        Raises:
            StoreFailed: the disk is full, or broken.
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
            if not self.folder_of(digest):  # else another process was faster
                raise StoreFailed(
                    f"--adapter-store: can't copy to {self._folder}: {error}"
                ) from None

    def discard(self, digest: str) -> None:
        """Remove a version's copy if there is one."""
        assert _DIGEST.fullmatch(digest)
        folder = self._folder / digest
        gone = self._folder / f"{_UNFINISHED}{digest}-{os.getpid()}"
        try:
            folder.rename(gone)  # nobody finds half of it
        except OSError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def trim(self, worth: Worth) -> list[str]:
        """Make the copies fit into their bytes; returns the digests that had to go."""
        copies = sorted(self.copies(), key=lambda copy: (worth(copy.digest), copy.used_s))
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
        """Whether `trim` would remove anything."""
        return sum(copy.num_bytes for copy in self.copies()) > self._max_bytes

    def _remove_unfinished(self) -> None:
        """What processes that were killed have left behind."""
        for folder in self._folder.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > UNFINISHED_S:
                    shutil.rmtree(folder, ignore_errors=True)

    def copies(self) -> list[Copy]:
        """All versions that are here."""
        found = []
        for folder in self._folder.iterdir():
            if _DIGEST.fullmatch(folder.name):
                try:
                    num_bytes = sum(file.stat().st_size for file in folder.iterdir())
                    found.append(Copy(folder.name, num_bytes, folder.stat().st_mtime))
                except FileNotFoundError:  # another process needed the room
                    continue
        return found
