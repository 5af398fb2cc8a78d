"""Turns a name that a package doesn't have any more into an error that says so."""

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import worker.upstream
from shared.errors import UpstreamChanged
from worker.upstream.versions import bounded_package, install_command


@contextmanager
def names_of(package: str) -> Iterator[None]:
    """Import names of `package` in the body.

    Raises:
        UpstreamChanged: the installed version lacks one of them. The message has the version, the
            name, and the command that installs a tested version.
    """
    try:
        yield
    except ImportError as error:
        found = bounded_package(package)
        reason = str(error).partition(" (")[0]  # without the path of the package's file
        raise UpstreamChanged(
            f"{found} doesn't fit this version of Lorikeet: {reason}; {install_command([found])} "
            "installs a tested version"
        ) from None


def check_names() -> None:
    """Import all modules of this room, so that a missing name ends a start and not a job.

    Raises:
        UpstreamChanged: a package lacks a name.
    """
    for module in pkgutil.iter_modules(worker.upstream.__path__):
        import_module(f"{worker.upstream.__name__}.{module.name}")
