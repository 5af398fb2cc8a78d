"""Checks the sources of adapters that clients name at run time."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared.adapter_flags import is_hub_id
from shared.adapter_sources import SourceTemplate, is_remote
from shared.errors import ErrorCode, JobFailed, SettingsError, SourceFailed, failed
from shared.settings import WorkerSettings
from worker.adapters.remote.allowed_urls import AllowedUrls
from worker.lora.checkpoint.adapter_files import link_root

HUB = "hub:"
"""Prefix of a Hugging Face organisation in --adapter-root."""
_ORGANISATION = re.compile(r"[A-Za-z0-9][\w.-]*")


class AdapterRoots:
    """The folders, hub organisations and URLs that clients may load adapters from.

    All links in a path are resolved before the check. Therefore clients can't use `..` or links to
    reach other folders.
    """

    def __init__(
        self, roots: Sequence[str], at_start: Iterable[str], template: SourceTemplate | None = None
    ) -> None:
        """Allow sources under `roots`, and sources that `template` makes.

        If `roots` is empty, allow everything under the parent of each folder in `at_start`.
        `at_start` has the sources of the adapters in the settings.

        Raises:
            SettingsError: a root is neither a folder nor an organisation of the hub nor a URL.
        """
        at_start = list(at_start)
        self._at_start = {*at_start, *map(str, map(_resolved, at_start))}
        self._organisations = {r.removeprefix(HUB) for r in roots if r.startswith(HUB)}
        for name in self._organisations:
            if not _ORGANISATION.fullmatch(name):
                raise SettingsError(
                    f"--adapter-root {HUB}{name}: not a valid name of a hub organisation"
                )
        self._template = template
        self.urls = AllowedUrls([r for r in roots if is_remote(r)], at_start, template)
        """The URLs that clients may load adapters from."""
        self._folders = [_root(r) for r in roots if not (r.startswith(HUB) or is_remote(r))]
        if not roots:
            self._folders = sorted(_parents(at_start))
        if template and template.folder:
            self._folders.append(_root(template.folder))

    def __str__(self) -> str:
        """Return the roots, separated by spaces, for the log."""
        hubs = [HUB + name for name in self._organisations]
        return " ".join([*map(str, self._folders), *hubs, str(self.urls)]).strip()

    def are_operators(self, source: str) -> bool:
        """Return whether the settings name `source` as an adapter that is loaded at the start."""
        return source in self._at_start

    def locate(self, source: str) -> str:
        """Return the full path of the folder `source`, or `source` itself if it is a URL or hub id.

        Raises:
            JobFailed: the source isn't allowed, or it is allowed but isn't a folder.
        """
        if is_remote(source):
            self._check_url(source)
            return source
        is_allowed = is_folder = False
        try:
            folder = Path(source).resolve()
            is_allowed = self._holds(folder) and self._holds(link_root(folder))
            is_folder = is_allowed and bool(source) and folder.is_dir()
        except (OSError, RuntimeError, ValueError):  # circular links and impossible names
            is_folder = False
        if is_folder:
            return str(folder)
        if is_hub_id(source) and self._allows_repository(source):
            return source
        if is_allowed:
            raise _refused(
                ErrorCode.SOURCE_NOT_FOUND, f"{source!r} isn't a folder on the worker's machine"
            )
        raise _refused(
            ErrorCode.SOURCE_NOT_ALLOWED,
            f"{source!r} isn't in a folder from which adapters may be loaded; send its files with "
            "`lorikeet adapters push NAME FOLDER`, or start the workers with --adapter-root "
            "FOLDER, hub:ORG for a hub organisation, or a URL",
        )

    def _holds(self, folder: Path) -> bool:
        return any(folder.is_relative_to(root) for root in self._folders)

    def _allows_repository(self, source: str) -> bool:
        is_made = self._template is not None and self._template.makes(source)
        return is_made or source.partition("/")[0] in self._organisations

    def _check_url(self, source: str) -> None:
        try:
            self.urls.checked(source)
        except SourceFailed as error:
            raise _refused(error.code, str(error)) from None


def _resolved(source: str) -> Path:
    path = Path(source).expanduser()
    return path.resolve() if _is_folder(path) else path


def _root(given: str) -> Path:
    folder = Path(given).expanduser()
    if not (given and _is_folder(folder)):
        raise SettingsError(
            f"--adapter-root: {given!r} isn't a folder on this machine that this user can read"
        )
    return folder.resolve()


def _parents(sources: Iterable[str]) -> set[Path]:
    folders = [Path(source).expanduser().resolve() for source in sources]
    parents = {_parent(folder) for folder in folders if _is_folder(folder)}
    return {folder for folder in parents if folder != Path(folder.anchor)}  # "/" allows all


def _is_folder(path: Path) -> bool:
    """Return whether `path` is a folder that this user can reach."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _parent(folder: Path) -> Path:
    """Return the parent of `folder`, or the cached repository of a hub snapshot."""
    root = link_root(folder)
    return folder.parent if root == folder else root


def _refused(code: ErrorCode, message: str) -> JobFailed:
    return failed(code, message, "lora_path")


def adapter_roots(settings: WorkerSettings) -> AdapterRoots:
    """Return the sources that clients may name. Raises SettingsError for a bad root."""
    sources = settings.adapter_sources.values()
    template = SourceTemplate.of(settings.adapter_source)
    return AdapterRoots(settings.adapter_roots, sources, template)
