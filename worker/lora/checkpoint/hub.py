"""Finds the folder of an adapter, and downloads it from the Hugging Face hub if necessary."""

from pathlib import Path

from shared.adapter_flags import is_hub_id
from shared.errors import AdapterRejected, ErrorCode, SourceFailed, first_line
from shared.protocol.adapter_files import CONFIG_FILE, PICKLED_FILE, PROMPT_FILES, WEIGHTS_FILE


def adapter_folder(source: str, is_operators: bool = False) -> Path:
    """Return the local folder of `source`. If `source` is a hub id, download it first.

    Set `is_operators` if the operator, not a client, named the adapter. Only then may its weights
    be pickled.

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
    pickled = [PICKLED_FILE] if is_operators else []
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, *PROMPT_FILES, *pickled],
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

    message = f"{source!r} isn't a folder on this machine, and {why_not_downloaded(error)}"
    if isinstance(error, (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)):
        return AdapterRejected(message)
    return SourceFailed(ErrorCode.UNAVAILABLE, message)


def why_not_downloaded(error: Exception) -> str:
    """Return why a download from the hub failed and what to do, as the end of a sentence."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    reason = first_line(error)
    is_refusal = isinstance(error, (HfHubHTTPError, HFValidationError))
    if is_refusal or (
        isinstance(error, OSError) and not isinstance(error, LocalEntryNotFoundError)
    ):
        return (
            f"downloading it from the Hugging Face hub failed ({reason}); correct the name, or set "
            "HF_TOKEN if it needs an account"
        )
    if constants.HF_HUB_OFFLINE:
        return (
            "the Hugging Face hub's cache on this machine doesn't have it; unset HF_HUB_OFFLINE to "
            "download it, or name a folder"
        )
    return (
        f"the Hugging Face hub can't be reached to download it ({reason}); check the network, or "
        "copy it to this machine and name its folder"
    )
