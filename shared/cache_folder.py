"""Location of the folder for files that Lorikeet can create again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return Lorikeet's cache folder: `$XDG_CACHE_HOME/lorikeet`, else `~/.cache/lorikeet`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "lorikeet"
