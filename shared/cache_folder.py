"""Location of the folder for files that Lorikeet can recreate."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/lorikeet`, or `~/.cache/lorikeet` if the variable isn't set."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "lorikeet"
