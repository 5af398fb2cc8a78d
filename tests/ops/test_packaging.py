"""The distribution declares what its code imports, and the wheel holds what its code reads."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rooms import imported_names

from ops.docker.rehearse import context_files

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
FIRST_PARTY = {"api", "worker", "shared", "ops", "tests"}
SHARED, API, WORKER, DEMO = LISTS = (
    "shared/requirements.txt",
    "api/requirements.txt",
    "worker/requirements.txt",
    "ops/demo/requirements.txt",
)
"""The lists that make up the dependencies. Images without torch install some of them."""
NEEDS = {
    "api": {API},
    "worker": {WORKER},
    "ops/control": {API},  # runs in the API image
    "shared": set(),
    "ops": set(),
    "ops/load/plot.py": {"bench"},
    "ops/lab": {"bench", "dev", WORKER, API},
    "ops/demo": {DEMO, WORKER},
    "ops/demo/plot.py": {"bench"},
    "ops/doctor": {WORKER},
    "tests": {API, WORKER, DEMO, "dev"},
}
"""Lists and extras that a folder or file may need besides `SHARED`. The longest path wins."""
FROM_ELSEWHERE = {"triton", "vllm"}
"""Imported where they exist: PyTorch's CUDA wheels install Triton, and its absence is handled. vLLM
has a virtual environment of its own, whose packages worker/engine_vllm/requirements*.txt list."""
OTHER_ENVIRONMENT = [
    ROOT / "tests" / "clients" / name for name in ("scenarios", "generic", "streams")
]
"""Run in the clients' virtual environment, whose packages tests/clients/requirements.txt lists."""
SOURCES = sorted(
    path
    for top in FIRST_PARTY
    for path in (ROOT / top).rglob("*.py")
    if not any(path.is_relative_to(folder) for folder in OTHER_ENVIRONMENT)
)
SUPPORT = {path.stem for path in (ROOT / "tests").rglob("*.py")}
"""Test modules import each other by these names."""
DATA = {
    "shared/store/lua": "*.lua",
    "worker/engine_vllm": "*.txt",
    "worker/kernels/cpu/src": "*",
    "ops/demo/adapters": "*",
    "ops/demo/data": "*.json",
    **dict.fromkeys(sorted(FIRST_PARTY - {"tests"}), "py.typed"),
}
"""Files that the code reads at run time."""


def normalized(name: str) -> str:
    """A distribution's name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required_name(requirement: str) -> tuple[str, set[str]]:
    """The distribution that a requirement names, and the extras that it asks for."""
    name, extras = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement).groups()
    return normalized(name), set(extras.split(",")) if extras else set()


def requirements(path: str) -> list[str]:
    lines = (ROOT / path).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@cache
def declared(name: str) -> frozenset[str]:
    """Distributions that one of `LISTS`, or an extra, declares directly."""
    listed = requirements(name) if name in LISTS else PROJECT["optional-dependencies"][name]
    names: set[str] = set()
    for name, extras in map(required_name, listed):
        if name == normalized(PROJECT["name"]):
            names |= {dependency for other in extras for dependency in declared(other)}
        else:
            names.add(name)
    return frozenset(names)


def needs_of(path: str) -> set[str]:
    fits = [prefix for prefix in NEEDS if path == prefix or path.startswith(f"{prefix}/")]
    return NEEDS[max(fits, key=len)]


def third_party_imports(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, within functions too."""
    known = FIRST_PARTY | set(sys.stdlib_module_names)
    known |= SUPPORT if path.is_relative_to(ROOT / "tests") else set()
    return {name.partition(".")[0] for name in imported_names(path)} - known


@pytest.mark.parametrize("top", sorted(FIRST_PARTY))
def test_every_import_is_declared(top: str) -> None:
    owners = packages_distributions()
    undeclared = []
    for path in (path for path in SOURCES if path.is_relative_to(ROOT / top)):
        relative = path.relative_to(ROOT).as_posix()
        allowed = declared(SHARED).union(*map(declared, needs_of(relative)))
        for module in third_party_imports(path) - FROM_ELSEWHERE:
            if allowed.isdisjoint(map(normalized, owners.get(module, [module]))):
                undeclared.append(f"{relative} imports {module}")
    assert undeclared == []


def test_without_extras_everything_that_up_and_its_demo_need_is_installed() -> None:
    assert PROJECT["dynamic"] == ["dependencies"]
    assert tuple(SETUPTOOLS["dynamic"]["dependencies"]["file"]) == LISTS
    needed = [requires(PROJECT["name"]), [line for path in LISTS for line in requirements(path)]]
    installed, listed = (
        {Requirement(r) for r in lines or () if "extra" not in r} for lines in needed
    )
    assert installed == listed


def test_the_installed_distribution_is_this_one() -> None:
    assert version(PROJECT["name"]) == PROJECT["version"]
    assert PROJECT["scripts"] == {"lorikeet": "ops.entry:main"}


LABORATORY = ("ops/lab/", "ops/bench/")
"""Folders that run in a checkout only."""


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel that is built as in a checkout, which has the laboratory, too."""
    source = tmp_path_factory.mktemp("source")
    laboratory = [path.relative_to(ROOT) for top in LABORATORY for path in files_of(ROOT / top)]
    for path in (*context_files(), *laboratory):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, source / path)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (wheel,) = (source / "dist").glob("*.whl")
    assert wheel.name == f"lorikeet_serve-{PROJECT['version']}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_of(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def test_the_wheel_holds_every_module_but_those_of_the_laboratory(wheel_files: set[str]) -> None:
    modules = [path.relative_to(ROOT).as_posix() for path in SOURCES]
    assert [name for name in modules if not name.startswith(("tests/", *LABORATORY))] == sorted(
        name for name in wheel_files if name.endswith(".py")
    )
    assert [name for name in wheel_files if name.startswith(LABORATORY)] == []


@pytest.mark.parametrize(("folder", "pattern"), DATA.items())
def test_the_wheel_holds_the_data_of(wheel_files: set[str], folder: str, pattern: str) -> None:
    data = [path for path in (ROOT / folder).rglob(pattern) if path.is_file()]
    assert data
    assert {path.relative_to(ROOT).as_posix() for path in data} <= wheel_files
