"""Writes figures to JSON files."""

from pathlib import Path
from typing import Any

import orjson


def write_json(figures: Any, path: Path) -> None:
    """Write dataclasses or containers of them to `path` as indented JSON. NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
