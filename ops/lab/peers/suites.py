"""Describes the suites of peers' tests: the origin of their sources, and the files to run."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHIMS = "ops.lab.peers.shims"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A source package on PyPI that contains a peer's tests."""

    name: str
    version: str
    sha256: str
    """SHA-256 digest of the archive, in hexadecimal."""
    root: str = ""
    """Folder of the peer's sources, relative to the only top folder of the archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Client-side tests of one peer. All paths are relative to the root of the peer's sources."""

    title: str
    needed: tuple[str, ...]
    """Folders and files that the tests need."""
    folder: str
    """Folder in which pytest runs."""
    shim: str
    """Name of the pytest plugin in `shims` that replaces the peer's server."""
    files: tuple[str, ...]
    """Files of tests, relative to `folder`."""
    scope: str
    """One or two sentences that say which tests are left out."""
    marks: str = ""
    """Value of pytest's option -m: an expression of marks. Only tests that match it are run."""
    package: Package | None = None
    """Package that contains the tests. If it is None, the caller must name another source."""


def read_suites(file: Path) -> dict[str, Suite]:
    """Read all suites from `file`. Return them by the names that the command line uses."""
    rows = tomllib.loads(file.read_text())
    return {name: _suite(row) for name, row in rows.items()}


def _suite(row: Mapping[str, object]) -> Suite:
    fields = {key: tuple(text) if isinstance(text, list) else text for key, text in row.items()}
    package = row.get("package")
    if isinstance(package, Mapping):
        fields["package"] = Package(**package)
    return Suite(**fields)  # type: ignore[arg-type]


SUITES = read_suites(Path(__file__).with_name("suites.toml"))
