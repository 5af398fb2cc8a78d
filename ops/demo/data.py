"""Lists of words and phrases of the demo's examples, which are data files."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data"


@cache
def lists(name: str) -> dict[str, Any]:
    """Return the lists of `name`.json. Callers must not change them.

    Training examples use those under the key `known`. Those under `held_out` appear in no training
    example.
    """
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found
