"""Writes figures to JSON files."""

from pathlib import Path
from typing import Any

import orjson


def write_json(figures: Any, path: Path) -> None:
    """Write a dataclass, or what holds such, for people and programs; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
