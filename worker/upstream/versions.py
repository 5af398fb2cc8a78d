"""Compares the installed packages with the versions that Lorikeet was tested with.

A tested window is a range in Lorikeet's own requirements that has an upper bound. Nothing here
imports a package that it reports about.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

LORIKEET = "lorikeet-serve"
UPPER = {"<", "<=", "==", "~="}


@dataclass(frozen=True, slots=True)
class BoundedPackage:
    """A package with a tested window, and the version of it that is installed."""

    name: str
    installed: str | None
    """Installed version, or None if the package isn't installed."""
    window: SpecifierSet

    @property
    def is_tested(self) -> bool:
        """Whether the installed version is in the window."""
        return self.installed is not None and self.window.contains(self.installed, prereleases=True)

    @property
    def requirement(self) -> str:
        """Name and window in the form that pip reads, such as `peft>=0.17,<0.22`."""
        return f"{self.name}{self._range()}"

    def __str__(self) -> str:
        """Return name, installed version and window, as a user should read them."""
        return f"{self.name} {self.installed or '(not installed)'} (tested: {self._range()})"

    def _range(self) -> str:
        # A set of specifiers has no order of its own.
        return ",".join(
            sorted(map(str, self.window), key=lambda each: (each.startswith("<"), each))
        )


def bounded_packages() -> Iterator[BoundedPackage]:
    """Yield the packages with a tested window: none if Lorikeet itself isn't installed."""
    try:
        lines = requires(LORIKEET) or []
    except PackageNotFoundError:
        return
    for line in lines:
        wanted = Requirement(line)
        is_needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if is_needed and any(each.operator in UPPER for each in wanted.specifier):
            yield BoundedPackage(wanted.name, _installed(wanted.name), wanted.specifier)


def untested_note() -> str | None:
    """Return a sentence about installed packages outside their windows, or None if there are none.

    It ends with the command that installs tested versions.
    """
    untested = untested_packages()
    if not untested:
        return None
    names = ", ".join(map(str, untested))
    command = install_command(untested)
    return f"Lorikeet wasn't tested with {names}; {command} installs tested versions"


def untested_packages() -> list[BoundedPackage]:
    """Return the installed packages whose versions are outside their windows."""
    return [each for each in bounded_packages() if each.installed and not each.is_tested]


def install_command(packages: Sequence[BoundedPackage]) -> str:
    """Return the command that installs tested versions of `packages`."""
    return f"`pip install {' '.join(repr(each.requirement) for each in packages)}`"


def bounded_package(name: str) -> BoundedPackage:
    """Return the package `name`. Its window is unlimited if Lorikeet's requirements have none."""
    found = (each for each in bounded_packages() if each.name == name)
    return next(found, BoundedPackage(name, _installed(name), SpecifierSet()))


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
