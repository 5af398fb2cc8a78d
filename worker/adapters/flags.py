"""The flags that name adapters."""

import os
from collections.abc import Sequence

from shared.adapter_names import NAME_RULE, is_valid_name
from shared.errors import SettingsError


def parse_adapter_flags(flags: Sequence[str]) -> dict[str, str]:
    """Source (a folder or hub id) of each adapter, by name, in the order given.

    A flag is `name=source`, or a bare source, whose last part is then the name.

    Raises:
        SettingsError: a flag gives a bad name, no source, or a name for the second time.
    """
    sources: dict[str, str] = {}
    for flag in flags:
        name, source = _split(flag)
        if not is_valid_name(name):
            raise SettingsError(f"--adapters {flag!r}: bad adapter name {name!r} ({NAME_RULE})")
        if not source:
            raise SettingsError(f"--adapters {flag!r}: no folder or hub id after '='")
        if name in sources:
            raise SettingsError(f"--adapters {flag!r}: the name {name!r} is given twice")
        sources[name] = source
    return sources


def _split(flag: str) -> tuple[str, str]:
    name, equals, source = flag.partition("=")
    return (name, source) if equals else (os.path.basename(os.path.abspath(flag)), flag)
