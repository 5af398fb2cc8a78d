"""Where Lorikeet keeps what it can make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Lorikeet's cache: `$XDG_CACHE_HOME/lorikeet`, else `~/.cache/lorikeet`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "lorikeet"
