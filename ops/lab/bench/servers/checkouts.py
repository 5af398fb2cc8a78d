"""Runs the code of another checkout, or this checkout's benchmarks on that code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.lab.machine import ROOT
from ops.lab.server_processes import clean_environment
from shared.errors import SettingsError

MEASURED = ("shared", "api", "worker")
"""Packages that are taken from the measured checkout."""
LORIKEET = (sys.executable, "-c", "from ops.cli import main; main()")
"""The command `lorikeet`, from the checkout that PYTHONPATH names."""


def checked(checkout: Path) -> Path:
    """Return the absolute path of `checkout`.

    Raises:
        SettingsError: `checkout` isn't a checkout of Lorikeet.
    """
    for name in MEASURED:
        if not (checkout / name / "__init__.py").exists():
            raise SettingsError(f"--baseline {checkout}: has no package {name}")
    return checkout.absolute()


def environment_of(checkout: Path) -> dict[str, str]:
    """Return the environment of processes that run the code of `checkout`."""
    paths = os.pathsep.join([str(checkout.absolute()), os.environ.get("PYTHONPATH", "")])
    return clean_environment() | {"PYTHONPATH": paths}


@contextmanager
def benchmarks_of(checkout: Path) -> Iterator[Path]:
    """Provide a folder that links to `ops` of the running code, and to `MEASURED` of `checkout`.

    Raises:
        SettingsError: `checkout` isn't a checkout of Lorikeet.
    """
    root = checked(checkout)
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        for name in MEASURED:
            (Path(scratch) / name).symlink_to(root / name)
        (Path(scratch) / "ops").symlink_to(ROOT / "ops")
        yield Path(scratch)
