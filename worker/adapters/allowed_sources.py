"""Where adapters may lie that clients name at run time."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared.errors import ErrorCode, JobError, JobFailed, SettingsError
from worker.lora.checkpoint.source import is_hub_id, link_root

HUB = "hub:"
"""In front of an organisation of the Hugging Face hub whose adapters may be loaded."""
_ORGANISATION = re.compile(r"[A-Za-z0-9][\w.-]*")


class AdapterRoots:
    """Tells which folders and hub ids a request may name.

    Folders are compared after all links are resolved, so that neither `..` nor a link leads out.
    """

    def __init__(self, roots: Sequence[str], at_start: Iterable[str]) -> None:
        """Allow what lies under `roots`; without any, the neighbours of the folders `at_start`.

        Raises:
            SettingsError: a root is no folder here, and no organisation of the hub.
        """
        self._organisations = {r.removeprefix(HUB) for r in roots if r.startswith(HUB)}
        for name in self._organisations:
            if not _ORGANISATION.fullmatch(name):
                raise SettingsError(f"--adapter-root {HUB}{name}: no organisation of the hub")
        self._folders = [_root(r) for r in roots if not r.startswith(HUB)]
        if not roots:
            self._folders = sorted(_neighbourhoods(at_start))

    def __str__(self) -> str:
        """For the log."""
        return " ".join([*map(str, self._folders), *(HUB + name for name in self._organisations)])

    def locate(self, source: str) -> str:
        """The full path of the folder that `source` names, or the hub id that it is.

        Raises:
            JobFailed: it isn't allowed, whether it exists or not; or it is, and isn't a folder.
        """
        is_allowed = is_folder = False
        try:
            folder = Path(source).resolve()
            is_allowed = self._holds(folder) and self._holds(link_root(folder))
            is_folder = is_allowed and bool(source) and folder.is_dir()
        except (OSError, RuntimeError, ValueError):  # links in a circle, names that can't be
            is_folder = False
        if is_folder:
            return str(folder)
        if is_hub_id(source) and source.partition("/")[0] in self._organisations:
            return source
        if is_allowed:
            raise _refused(ErrorCode.SOURCE_NOT_FOUND, f"there is no folder {source!r}")
        raise _refused(
            ErrorCode.SOURCE_NOT_ALLOWED,
            f"{source!r} isn't under a folder that adapters may be loaded from; the worker's "
            "--adapter-root adds one, or with hub:ORG an organisation of the Hugging Face hub",
        )

    def _holds(self, folder: Path) -> bool:
        return any(folder.is_relative_to(root) for root in self._folders)


def _root(given: str) -> Path:
    folder = Path(given).expanduser()
    if not (given and folder.is_dir()):
        raise SettingsError(f"--adapter-root: {given!r} is no folder here")
    return folder.resolve()


def _neighbourhoods(sources: Iterable[str]) -> set[Path]:
    folders = [Path(source).expanduser().resolve() for source in sources]
    around = {_around(folder) for folder in folders if folder.is_dir()}
    return {folder for folder in around if folder != Path(folder.anchor)}  # not the whole machine


def _around(folder: Path) -> Path:
    """The folder above; in the hub's cache what belongs to the same repository."""
    root = link_root(folder)
    return folder.parent if root == folder else root


def _refused(code: ErrorCode, message: str) -> JobFailed:
    return JobFailed(JobError(code=code, message=message, param="lora_path"))
