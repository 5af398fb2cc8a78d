"""Lorikeet's folders of a user, as in the XDG base directory specification."""

import os
from pathlib import Path

from shared.errors import SettingsError


def user_folder(variable: str, below_home: str, *, without_home: str) -> Path:
    """Return the folder `lorikeet` in the folder that the environment variable `variable` names.

    If the variable isn't set, return the folder `lorikeet` in the folder `below_home` of the user's
    home folder.

    Raises:
        SettingsError: the variable isn't set, and this user has no home folder. The message
            ends with `without_home`, which says what the folder is for and what to do.
    """
    root = os.environ.get(variable)
    try:
        return (Path(root) if root else Path.home() / below_home) / "lorikeet"
    except RuntimeError:
        raise SettingsError(f"this user has no home folder {without_home}") from None
