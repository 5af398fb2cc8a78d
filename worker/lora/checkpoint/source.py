"""Resolves an adapter's source, a folder or a Hugging Face hub id, to a local folder."""

from pathlib import Path

from shared.adapter_flags import is_hub_id
from shared.errors import AdapterRejected, ErrorCode, SourceFailed
from shared.protocol.uploads import CONFIG_FILE, PROMPT_FILES, WEIGHTS_FILE

_PICKLED = (
    "adapter_model.bin can run code when it is read and isn't supported; convert it by loading "
    "the adapter with peft and calling save_pretrained(folder, safe_serialization=True)"
)


def adapter_folder(source: str) -> Path:
    """Return the local folder of `source`. If `source` is a hub id, download it first.

    A hub id may name a revision: `org/name@revision`.

    The hub client reads its own settings, such as HF_HOME, HF_TOKEN and HF_HUB_OFFLINE.

    Raises:
        AdapterRejected: the folder doesn't exist or can't be read, or the download failed. The
            subclass SourceFailed means that the hub can't be reached.
    """
    path = Path(source).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # this user may not look into a folder above it
        raise AdapterRejected(f"{source!r} can't be read: {error.strerror}") from None
    if source and is_folder:
        return path
    if exists or not is_hub_id(source):
        raise AdapterRejected(f"{source!r} is neither a folder nor a hub id (org/name)")
    # Commands check folders without the time that this import takes.
    from huggingface_hub import snapshot_download

    repository, _, revision = source.partition("@")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, *PROMPT_FILES],
        )
    except Exception as error:  # the client also raises errors of its HTTP library
        raise _download_failed(source, error) from error
    return Path(folder)


def _download_failed(source: str, error: Exception) -> AdapterRejected:
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    message = (
        f"{source!r} isn't a folder on this machine, and downloading it from the Hugging Face hub "
        f"failed: {error}"
    )
    if isinstance(error, (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)):
        return AdapterRejected(message)
    return SourceFailed(ErrorCode.UNAVAILABLE, message)


def adapter_file(folder: Path, name: str) -> Path:
    """Return the path of the file `name` in an adapter's folder.

    Raises:
        AdapterRejected: the file is missing, isn't a regular file, or is a link to a place outside
            the folder.
    """
    path = folder / name
    if not path.is_file():
        hint = f" ({_PICKLED})" if name == WEIGHTS_FILE else ""
        raise AdapterRejected(f"{path} is missing{hint}")
    if not path.resolve().is_relative_to(link_root(folder)):
        raise AdapterRejected(f"{path} is a link to a place outside its folder; copy the file")
    return path


def prompt_file_names(folder: Path) -> set[str]:
    """Return the names of the folder's files that match `PROMPT_FILES`."""
    return {path.name for pattern in PROMPT_FILES for path in folder.glob(pattern)}


def link_root(folder: Path) -> Path:
    """Return the folder in which the targets of links in `folder` must lie.

    If `folder` is a snapshot in the hub's cache, this is the folder of the cached repository.
    Otherwise, it is `folder` itself.
    """
    resolved = folder.resolve()
    return resolved.parents[1] if resolved.parent.name == "snapshots" else resolved
