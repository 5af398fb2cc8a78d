"""Errors of changes that the registry refuses."""

from collections.abc import Sequence

from shared.errors import ErrorCode, JobError


def already_loaded(name: str, version: str | None) -> JobError:
    """Return the error for loading an adapter under a name that is taken.

    The first two sentences are vLLM's, because clients match them.
    """
    return JobError(
        code=ErrorCode.ADAPTER_EXISTS,
        message=f"The lora adapter '{name}' has already been loaded. If you want to load the "
        f"adapter in place, set 'load_inplace' to True. The loaded version is {version}.",
        param="lora_name",
    )


def not_kept(name: str, version: str | None, kept: Sequence[str]) -> JobError:
    """Return the error for a version that isn't among `kept`, the current and previous ones."""
    current, *previous = kept
    listed = ", ".join((f"{current} (current)", *previous))
    message = f"adapter {name} keeps no version {version}; choose one of: {listed}"
    return JobError(code=ErrorCode.ADAPTER_CONFLICT, message=message, param="version")


def conflict(message: str) -> JobError:
    """Return the error for a change that the present state of an adapter doesn't allow."""
    return JobError(code=ErrorCode.ADAPTER_CONFLICT, message=message)


def quarantine(version: str | None) -> str:
    """Return the sentence that a version is quarantined."""
    return f"adapter {version} is quarantined: several of its jobs in a row killed their workers"
