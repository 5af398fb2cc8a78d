"""Combines this checkout's benchmarks with the code of another checkout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.bench.machine import ROOT
from shared.errors import SettingsError

MEASURED = ("shared", "api", "worker")
"""Packages of the measured checkout."""


def checked(checkout: Path) -> Path:
    """Return `checkout` unchanged.

    Raises:
        SettingsError: `checkout` isn't a checkout of Lorikeet.
    """
    for name in MEASURED:
        if not (checkout / name / "__init__.py").exists():
            raise SettingsError(f"--baseline {checkout}: has no package {name}")
    return checkout


@contextmanager
def benchmarks_of(checkout: Path) -> Iterator[Path]:
    """Provide a folder with this checkout's `ops` and the other packages of `checkout`.

    Raises:
        SettingsError: `checkout` isn't a checkout of Lorikeet.
    """
    checked(checkout)
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        root = Path(scratch)
        for name in MEASURED:
            (root / name).symlink_to((checkout / name).absolute())
        (root / "ops").symlink_to(ROOT / "ops")
        yield root
