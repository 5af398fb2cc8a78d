"""Parses the values of the --adapters flag."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from shared.adapter_names import NAME_RULE, is_valid_name
from shared.errors import SettingsError

LEFT_OUT = "adapter_left_out"
"""Event that a worker logs for each adapter that it leaves out, with its `name` and `reason`."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[A-Za-z0-9][\w./-]*)?")


def parse_adapter_flags(flags: Sequence[str]) -> dict[str, str]:
    """Return a dict from adapter names to adapter sources, in the order of the flags.

    A flag is `name=source` or just `source`. If it has no name, the last component of the source
    becomes the adapter's name. A source is a folder, a hub id or a URL. Folders are returned as
    absolute paths.

    Raises:
        SettingsError: a flag has an invalid name, no source, or the name of an earlier flag.
    """
    sources: dict[str, str] = {}
    for flag in flags:
        name, source = _split(flag)
        if not is_valid_name(name):
            raise SettingsError(f"--adapters {flag!r}: invalid adapter name {name!r} ({NAME_RULE})")
        if not source:
            raise SettingsError(f"--adapters {flag!r}: no folder or hub id after '='")
        if name in sources:
            raise SettingsError(f"--adapters {flag!r}: the name {name!r} is given twice")
        sources[name] = _full_path(source)
    return sources


def is_hub_id(source: str) -> bool:
    """Return whether `source` has the form `org/name` or `org/name@revision`."""
    return _HUB_ID.fullmatch(source) is not None and ".." not in source


def _split(flag: str) -> tuple[str, str]:
    name, equals, source = flag.partition("=")
    return (name, source) if equals else (os.path.basename(os.path.abspath(flag)), flag)


def _full_path(source: str) -> str:
    """Return the absolute path of a folder, so that other processes find it.

    Other sources are returned unchanged.
    """
    folder = Path(source).expanduser()
    try:
        return str(folder.resolve()) if folder.is_dir() else source
    except OSError:  # this user may not read a folder above it
        return os.path.abspath(folder)
