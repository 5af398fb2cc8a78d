"""Builds the files of a Docker image on machines without Docker, such as those of CI.

    python -m ops.docker.rehearse worker FOLDER [TORCH_INDEX= ...]

The program executes the build stages in ops/docker/Dockerfile with this Python and pip. FOLDER
takes the place of /. Words after FOLDER set ARGs of the Dockerfile. The program then prints the
command that starts what was built. Steps that only containers need (users, ownership) are left out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = Path(__file__).with_name("Dockerfile")


@dataclass(frozen=True, slots=True)
class Stage:
    """One build stage: all instructions from one `FROM` to the next."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of an instruction and its arguments."""

    def last(self, instruction: str) -> list[str]:
        """Return the words of the stage's last `instruction`, such as CMD, or an empty list."""
        found = [rest for word, rest in self.steps if word == instruction]
        words: list[str] = json.loads(found[-1]) if found else []
        return words


def stages(dockerfile: Path = DOCKERFILE) -> dict[str, Stage]:
    """Return the stages of the Dockerfile by name."""
    found: dict[str, Stage] = {}
    for line in _lines(dockerfile.read_text()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.split()
            found[name] = stage = Stage(base)
        elif found:  # an ARG before the first FROM applies only to FROM lines
            stage.steps.append((word, rest))
    return found


def _lines(text: str) -> Iterator[str]:
    """Yield each instruction as one line, without comments and line continuations."""
    without_comments = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    for line in without_comments.replace("\\\n", " ").splitlines():
        if line.strip():
            yield line.strip()


def context_files(root: Path = ROOT) -> Iterator[Path]:
    """Yield the files of the Docker build context, as paths relative to `root`."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    tops = [root / rule[1:] for rule in rules if rule.startswith("!")]
    for top in tops:
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            relative = path.relative_to(root)
            if path.is_file() and not _is_ignored(relative.as_posix(), rules):
                yield relative


def _is_ignored(path: str, rules: list[str]) -> bool:
    """Return whether the rules ignore `path`. The last rule that matches `path` decides."""
    is_ignored = False
    for rule in filter(None, rules):
        pattern = rule.removeprefix("!")
        prefix = r"(.*/)?" if pattern.startswith("**/") else ""
        body = re.escape(pattern.removeprefix("**/")).replace(r"\*", "[^/]*")
        if re.fullmatch(f"{prefix}{body}(/.*)?", path):
            is_ignored = not rule.startswith("!")
    return is_ignored


class Rehearsal:
    """Executes build stages with `folder` as the root of the file system."""

    def __init__(self, folder: Path, args: Mapping[str, str]) -> None:
        self._folder = folder
        self._args = args
        self._cwd = folder
        here = Path(sys.executable).parent
        self._env = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}

    def build(self, name: str) -> None:
        """Execute the stages that the stage `name` is based on, then the stage `name`.

        Raises:
            CalledProcessError: a RUN line failed.
        """
        stage = stages()[name]
        if stage.base in stages():
            self.build(stage.base)
        for word, rest in stage.steps:
            self._execute(word, rest)

    def _execute(self, word: str, rest: str) -> None:
        match word:
            case "ARG":
                name, _, default = rest.partition("=")
                self._env[name] = self._args.get(name, default)
            case "ENV":
                self._env |= dict(each.split("=", 1) for each in rest.split())
            case "WORKDIR":
                self._cwd = self._folder / rest.lstrip("/")
                self._cwd.mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(*rest.split())
            case "RUN":
                print(f"RUN {rest}", flush=True)
                command = rest.replace(" /opt/", f" {self._folder}/opt/")
                subprocess.run(["sh", "-ec", command], cwd=self._cwd, env=self._env, check=True)
            case other:
                raise ValueError(
                    f"Dockerfile: the instruction {other} isn't supported in a build stage"
                )

    def _copy(self, source: str, *others: str) -> None:
        """Execute a COPY, whose last argument is a folder. The source `.` is the whole context."""
        *more, folder = others
        for path in context_files():
            if source == ".":
                target = self._cwd / folder / path
            elif any(fnmatch(str(path), pattern) for pattern in (source, *more)):
                target = self._cwd / folder / path.name
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, target)


def main() -> None:
    """Build the image that the command line names."""
    image, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    args = dict(arg.split("=", 1) for arg in sys.argv[3:])
    Rehearsal(folder, args).build(f"build-{image}")
    words = stages()["runtime"].last("ENTRYPOINT") + stages()[image].last("CMD")
    print(f"start it with: {folder}/opt/lorikeet/bin/{' '.join(words)}")


if __name__ == "__main__":
    main()
