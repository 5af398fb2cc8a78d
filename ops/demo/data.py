"""Lists of words and phrases of the demo's examples, which are data files."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data"


@cache
def lists(name: str) -> dict[str, Any]:
    """Return the lists of `name`.json, of which training uses only `known`. Don't change them."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found
