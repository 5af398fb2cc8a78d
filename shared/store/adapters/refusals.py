"""Errors for changes of adapters that the registry refuses."""

from collections.abc import Sequence

from shared.errors import ErrorCode, JobFailed, failed


def already_loaded(name: str, version: str | None, *, field: str = "load_inplace") -> JobFailed:
    """Return the error for loading an adapter under a name that is taken.

    `field` is the request field with which a client asks to replace the adapter. The first two
    sentences of the message are vLLM's, because clients search for them.
    """
    message = (
        f"The lora adapter '{name}' has already been loaded. If you want to load the "
        f"adapter in place, set '{field}' to True. The loaded version is {version}."
    )
    return failed(ErrorCode.ADAPTER_EXISTS, message, "lora_name")


def not_kept(name: str, version: str | None, kept: Sequence[bytes]) -> JobFailed:
    """Return the error for a version that isn't in `kept`, the versions kept for the adapter."""
    current, *previous = [raw.decode() for raw in kept]
    listed = ", ".join((f"{current} (current)", *previous))
    message = f"adapter {name} keeps no version {version}; choose one of: {listed}"
    return failed(ErrorCode.ADAPTER_CONFLICT, message, "version")


def conflict(message: str) -> JobFailed:
    """Return the error for a change that the present state of an adapter doesn't allow."""
    return failed(ErrorCode.ADAPTER_CONFLICT, message)


def without_candidate(name: str) -> JobFailed:
    """Return the error for a request that needs a candidate although the name has none."""
    return conflict(f"adapter {name} has no candidate version")


def quarantine(version: str | None) -> str:
    """Return the error message for a quarantined version."""
    return f"adapter {version} is quarantined: several of its jobs in a row killed their workers"
