"""Which packages, folders and files may import what: api -> shared <- worker, and downward only."""

import ast
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from rooms import plans

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "worker", "shared", "ops")
MAY_IMPORT = {
    "shared": {"shared"},
    "api": {"api", "shared"},
    "worker": {"worker", "shared"},
    "ops": {"ops", "api", "worker", "shared"},
}
LAYERS = {
    "worker": ("engine", "model", "lora", "kernels"),
    "worker/lora": ("memory", "checkpoint", "side", "base"),
    "shared": ("store", "protocol"),
}
"""Folders of a package in which each may import only those after it, and none of the files above.

`None` of the two lists is complete: other folders of the same package may import all of these.
"""
TORCH_STACK = {"torch", "transformers", "peft", "safetensors"}
WEB_STACK = {"fastapi", "starlette", "uvicorn"}
IMPURE = {*TORCH_STACK, *WEB_STACK, "redis", "asyncio", "time", "datetime", "random", "structlog"}
"""What files that call themselves pure may not import: they have no side effects and no clock."""
PURE = re.compile(r"\b(Pure|Policy only)\.")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> tuple[str, ...]:
    """The full names that a file imports when it runs, without those for type checkers alone."""
    return tuple(imported(path, runtime_nodes(tree(path))))


def imported(path: Path, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The full names that a file's nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not is_for_types:
            yield from runtime_nodes(child)


FILES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))


@cache
def edges() -> list[tuple[str, str]]:
    """Each file with each full name that it imports, those for type checkers included."""
    return [
        (path.relative_to(ROOT).as_posix(), name)
        for path in FILES
        for name in imported(path, ast.walk(tree(path)))
    ]


def violations(is_wrong: Callable[[str, str], bool]) -> list[str]:
    return [f"{path} imports {name}" for path, name in edges() if is_wrong(path, name)]


def top(name: str) -> str:
    return name.split(".")[0]


def layer(name: str, package: str, layers: tuple[str, ...]) -> int | None:
    """Index of the layer that a path or module belongs to; None: it is in none of them."""
    parts = re.split(r"[/.]", name)
    depth = package.count("/") + 1
    is_inside = parts[:depth] == package.split("/") and len(parts) > depth
    return layers.index(parts[depth]) if is_inside and parts[depth] in layers else None


def test_packages_import_only_what_they_may() -> None:
    assert (
        violations(
            lambda p, n: top(n) in PACKAGES and top(n) not in MAY_IMPORT[top(p.replace("/", "."))]
        )
        == []
    )


def test_only_the_laboratory_imports_the_laboratory() -> None:
    names, folders = ("ops.lab.", "ops.bench."), ("ops/lab/", "ops/bench/")
    assert violations(lambda p, n: n.startswith(names) and not p.startswith(folders)) == []


def test_no_import_between_rooms_of_ops_runs_upwards() -> None:
    assert {plan.folder: plan.upward for plan in plans(packages=("ops",)) if plan.upward} == {}


def test_api_and_shared_never_import_the_torch_stack() -> None:
    assert (
        violations(lambda p, n: p.startswith(("api/", "shared/")) and top(n) in TORCH_STACK) == []
    )


def test_worker_and_shared_never_import_the_web_stack() -> None:
    assert (
        violations(lambda p, n: p.startswith(("worker/", "shared/")) and top(n) in WEB_STACK) == []
    )


def test_only_the_store_and_the_control_process_import_redis() -> None:
    def is_wrong(path: str, name: str) -> bool:
        may = path.startswith(("shared/store/", "ops/"))
        return top(name) == "redis" and not may

    assert violations(is_wrong) == []


@pytest.mark.parametrize("package", LAYERS)
def test_layers_import_downward_only(package: str) -> None:
    layers = LAYERS[package]

    def is_upward(path: str, name: str) -> bool:
        mine, other = layer(path, package, layers), layer(name, package, layers)
        return mine is not None and other is not None and other < mine

    assert violations(is_upward) == []


def test_the_engine_and_the_layers_below_import_none_of_the_workers_other_files() -> None:
    layers = LAYERS["worker"]

    def is_wrong(path: str, name: str) -> bool:
        is_below = layer(path, "worker", layers) is not None
        return is_below and top(name) == "worker" and layer(name, "worker", layers) is None

    assert violations(is_wrong) == []


def test_the_engine_and_the_layers_below_know_neither_redis_nor_asyncio() -> None:
    layers = LAYERS["worker"]
    assert (
        violations(
            lambda p, n: layer(p, "worker", layers) is not None and top(n) in {"redis", "asyncio"}
        )
        == []
    )


WORKER_STACK = {*TORCH_STACK, "tokenizers", "numpy", "llguidance", "jinja2", "huggingface_hub"}
"""Packages of the extra `worker`."""
SIMULATED = [path for path in FILES if path.parent.name == "engine_simulated"]


@pytest.mark.parametrize(
    "module",
    ["worker.service", "worker.engine.interface"]
    + [f"worker.engine_simulated.{path.stem}" for path in SIMULATED if path.stem != "__init__"],
)
def test_only_the_native_engine_needs_the_extra_worker(module: str) -> None:
    assert not reached(module) & WORKER_STACK


def test_kernels_import_nothing_of_ours() -> None:
    assert (
        violations(
            lambda p, n: (
                p.startswith("worker/kernels/")
                and top(n) in PACKAGES
                and not n.startswith("worker.kernels")
            )
        )
        == []
    )


def is_pure(path: Path) -> bool:
    # Most files need no parsing, which takes a second for all of them.
    is_named = PURE.search(path.read_text()) is not None
    return is_named and bool(PURE.search(ast.get_docstring(tree(path)) or ""))


PURE_FILES = [path.relative_to(ROOT).as_posix() for path in FILES if is_pure(path)]


def test_policies_are_pure() -> None:
    policies = [path for path in FILES if path.stem.endswith("_policy")]
    assert [path for path in policies if not is_pure(path)] == []
    assert len(PURE_FILES) > 20


@pytest.mark.parametrize("path", PURE_FILES)
def test_files_that_call_themselves_pure_are(path: str) -> None:
    assert sorted(set(map(top, imports(ROOT / path))) & IMPURE) == []
    assert [name for name in imports(ROOT / path) if "redis" in reached(name)] == []
    assert [name for name in imports(ROOT / path) if reached(name) & TORCH_STACK] == []


@cache
def reached(name: str) -> frozenset[str]:
    """Top-level modules that importing `name` imports at run time, by way of our files."""
    if top(name) not in PACKAGES:
        return frozenset({top(name)})
    found: set[str] = set()
    todo, seen = [name], set()
    while todo:
        module = todo.pop()
        if top(module) not in PACKAGES:
            found.add(top(module))
            continue
        path = file_of(module)
        if path is not None and path not in seen:
            seen.add(path)
            todo += imports(path)
    return frozenset(found)


def file_of(module: str) -> Path | None:
    """The file that defines a module, or the name `module` in it."""
    parts = module.split(".")
    for length in (len(parts), len(parts) - 1):
        path = ROOT.joinpath(*parts[:length]).with_suffix(".py")
        if path.is_file():
            return path
    return None


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_between_rooms_runs_upwards(package: str) -> None:
    upward = [
        text
        for found in plans(packages=(package,))
        for arrow in found.upward
        for text in found.arrows[arrow]
    ]
    assert upward == []


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_resolve_inside_this_distribution(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parents[1] == ROOT
