"""Provides the sources of a suite: from a package on PyPI, a folder, an archive or a Git clone."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx

from ops.lab.peers.suites import Package, Suite
from shared.cache_folder import cache_folder
from shared.errors import SettingsError

INDEX = "https://pypi.org/simple"
"""URL of the package index that is used unless pip's configuration names another one."""
JSON = "application/vnd.pypi.simple.v1+json"
TIMEOUT_S = 300.0


def unpack(suite: Suite, source: Path | None, target: Path) -> None:
    """Copy the files that `suite` needs. They are written to `target`.

    The files come from `source` or, if it is None, from the suite's package.

    Raises:
        SettingsError: the suite has no package, or its sources can't be read or downloaded.
    """
    if source is None:
        if suite.package is None:
            raise SettingsError(f"no package has the tests of {suite.title}: name a --source")
        source = downloaded(suite.package)
    if source.is_file():
        _unpack_archive(source, suite, target)
    elif (source / "HEAD").is_file():
        _unpack_clone(source, suite, target)
    else:
        _copy(source, suite, target)


def downloaded(package: Package) -> Path:
    """Return the path of a package's archive. The first call downloads it into the cache folder.

    pip itself can't be used: it would build the package to learn its dependencies.

    Raises:
        SettingsError: the index doesn't have the archive.
    """
    path = cache_folder() / "peers" / f"{package.name}-{package.version}.tar.gz"
    if path.is_file() and _sha256(path) == package.sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with httpx.Client(follow_redirects=True, timeout=TIMEOUT_S) as http:
            listing = http.get(f"{_index()}/{package.name}/", headers={"Accept": JSON})
            files = listing.raise_for_status().json()["files"]
            found = [
                file["url"] for file in files if file["hashes"].get("sha256") == package.sha256
            ]
            if not found:
                raise SettingsError(f"the index has no archive of {package.name} {package.version}")
            with (
                path.open("wb") as file,
                http.stream("GET", str(listing.url.join(found[0]))) as reply,
            ):
                for part in reply.raise_for_status().iter_bytes():
                    file.write(part)
    except httpx.HTTPError as error:
        raise SettingsError(
            f"{package.name} can't be downloaded: {error}; name a --source"
        ) from None
    if _sha256(path) != package.sha256:
        raise SettingsError(f"the archive of {package.name} {package.version} has another digest")
    return path


def _index() -> str:
    """Return the URL of the index in pip's configuration."""
    command = [sys.executable, "-P", "-m", "pip", "config", "get", "global.index-url"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip().rstrip("/") or INDEX


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack_archive(path: Path, suite: Suite, target: Path) -> None:
    root = suite.package.root if suite.package else ""
    with tarfile.open(path) as archive:
        for member in archive:
            inside = member.name.partition("/")[2].removeprefix(f"{root}/" if root else "")
            if _is_needed(inside, suite):
                archive.extract(member.replace(name=inside), target, filter="data")


def _unpack_clone(git_dir: Path, suite: Suite, target: Path) -> None:
    command = ["git", f"--git-dir={git_dir}", "archive", "HEAD", *suite.needed]
    packed = subprocess.run(command, capture_output=True, check=False)
    if packed.returncode:
        raise SettingsError(f"--source {git_dir}: {packed.stderr.decode(errors='replace').strip()}")
    subprocess.run(["tar", "-x", "-C", str(target)], input=packed.stdout, check=True)


def _copy(source: Path, suite: Suite, target: Path) -> None:
    for name in suite.needed:
        path = source / name
        if path.is_dir():
            shutil.copytree(path, target / name)
        elif path.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / name)
        else:
            raise SettingsError(f"--source {source}: has no {name}")


def _is_needed(path: str, suite: Suite) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in suite.needed)
