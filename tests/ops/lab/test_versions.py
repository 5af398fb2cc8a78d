"""`make test-newest` and `make test-oldest` take apart ranges, files of constraints and extras."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ops.lab import versions as lab
from ops.lab.versions import Resolver, Trial, requirements, versions

CONSTRAINTS = "arq==0.28.0\npeft==0.21.2\nopenai==3.57.1\nuvicorn[standard]==0.55.0 ; extra\n"


@pytest.fixture
def resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """A resolver for three packages, whose uv writes the newest of arq and the tested others."""
    tested = tmp_path / "tested.txt"
    tested.write_text(CONSTRAINTS)
    uv = tmp_path / "uv"
    uv.write_text(
        "#!/usr/bin/env python3\n"
        "import pathlib, sys\n"
        "flags = dict(word.split('=', 1) for word in sys.argv if '=' in word)\n"
        "new = CONSTRAINTS.replace('0.28.0', '0.30.0') if '--override' in sys.argv else "
        "CONSTRAINTS.replace('0.21.2', '0.21.3')\n"
        "pathlib.Path(flags['--output-file']).write_text(new)\n".replace(
            "CONSTRAINTS", repr(CONSTRAINTS)
        )
    )
    uv.chmod(0o755)
    monkeypatch.setattr(lab, "TESTED", tested)
    monkeypatch.setattr(lab, "BUILD", tmp_path)
    needed = {name: Requirement(text) for name, text in NEEDED.items()}
    tools = {"openai": Requirement("openai>=3")}
    monkeypatch.setattr(lab, "requirements", lambda extra: tools if extra else needed)
    monkeypatch.setattr(lab, "UV", str(uv))
    return Resolver()


NEEDED = {"arq": "arq>=0.28,<0.29", "peft": "peft>=0.18,<0.22", "uvicorn": "uvicorn>=0.32"}


def test_packages_above_their_ranges_are_tried_one_by_one(
    resolver: Resolver, tmp_path: Path
) -> None:
    allowed, above = resolver.newest()
    assert (allowed.title, allowed.packages) == ("the newest versions in the ranges", {"peft"})
    assert above == Trial("arq 0.30.0", {"arq"}, tmp_path / "versions-newest-arq.txt")
    assert (tmp_path / "versions-override.in").read_text() == "arq>=0.28.0\n"


def test_the_oldest_versions_are_tried_beside_the_tested_tools(
    resolver: Resolver, tmp_path: Path
) -> None:
    (trial,) = resolver.oldest()
    assert trial.packages == {"peft"}
    assert (tmp_path / "versions-tools.in").read_text() == "openai==3.57.1\n"


def test_constraints_are_read_without_extras_and_conditions(tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text(CONSTRAINTS)
    assert versions(file)["uvicorn"] == "0.55.0"


def test_requirements_of_users_and_of_development_are_told_apart() -> None:
    needed, tools = requirements(""), requirements("dev")
    assert [name in needed for name in ("transformers", "pytest")] == [True, False]
    assert [name in tools for name in ("transformers", "pytest")] == [False, True]
