"""Checks that plots can be drawn."""

import importlib.util
from pathlib import Path

from shared.errors import SettingsError


def check_plot(plot: Path | None) -> None:
    """Check that matplotlib is installed if `plot` is given.

    Raises:
        SettingsError: `plot` is given and matplotlib isn't installed.
    """
    if plot and importlib.util.find_spec("matplotlib") is None:
        raise SettingsError(f"--plot {plot}: matplotlib isn't installed: pip install matplotlib")
