"""Which packages, folders and files may import what: api -> shared <- worker, and downward only."""

import ast
import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from rooms import imported_names, plans

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "worker", "shared", "ops")
MAY_IMPORT = {
    "shared": {"shared"},
    "api": {"api", "shared"},
    "worker": {"worker", "shared"},
    "ops": {"ops", "api", "worker", "shared"},
}
LAYERS = {
    "worker": ("engine", "model", "lora", "upstream", "kernels"),
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


FILES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))


def imports(path: Path) -> tuple[str, ...]:
    return imported_names(path, for_types=False)


def top(name: str) -> str:
    return re.split(r"[/.]", name)[0]


def layer(name: str, package: str = "worker") -> int | None:
    """Index of the layer that a path or module belongs to; None: it is in none of them."""
    parts = re.split(r"[/.]", name)
    depth, layers = package.count("/") + 1, LAYERS[package]
    is_inside = parts[:depth] == package.split("/") and len(parts) > depth
    return layers.index(parts[depth]) if is_inside and parts[depth] in layers else None


def is_upward(path: str, name: str, package: str) -> bool:
    mine, other = layer(path, package), layer(name, package)
    return mine is not None and other is not None and other < mine


MAY_USE_UPSTREAM = ("worker/upstream/", "worker/engine_vllm/", "ops/lab/")
"""Files that may import any name of transformers and PEFT."""
UNPROMISED = ("transformers.AttentionInterface", "transformers.CONFIG_MAPPING")
UNPROMISED += ("transformers.MODEL_FOR_", "transformers.utils", "transformers.Conv1D")


def is_unpromised(name: str) -> bool:
    """Whether a name of transformers or PEFT isn't one of those that their guides describe."""
    in_submodule = top(name) in {"transformers", "peft"} and name.count(".") > 1
    return in_submodule or name.startswith(UNPROMISED)


FORBIDDEN: dict[str, Callable[[str, str], bool]] = {
    "packages import only what they may": lambda path, name: (
        top(name) in PACKAGES and top(name) not in MAY_IMPORT[top(path)]
    ),
    "only the laboratory imports the laboratory": lambda path, name: (
        name.startswith(("ops.lab.", "ops.bench."))
        and not path.startswith(("ops/lab/", "ops/bench/"))
    ),
    "api and shared never import the torch stack": lambda path, name: (
        top(path) in ("api", "shared") and top(name) in TORCH_STACK
    ),
    "worker and shared never import the web stack": lambda path, name: (
        top(path) in ("worker", "shared") and top(name) in WEB_STACK
    ),
    "only the store and the control process import redis": lambda path, name: (
        top(name) == "redis" and not path.startswith(("shared/store/", "ops/"))
    ),
    "layers import downward only": lambda path, name: any(
        is_upward(path, name, package) for package in LAYERS
    ),
    "the engine and the layers below import none of the worker's other files": lambda path, name: (
        layer(path) is not None and top(name) == "worker" and layer(name) is None
    ),
    "the engine and the layers below know neither redis nor asyncio": lambda path, name: (
        layer(path) is not None and top(name) in {"redis", "asyncio"}
    ),
    "only the room upstream imports what transformers and PEFT don't promise": lambda path, name: (
        is_unpromised(name) and not path.startswith(MAY_USE_UPSTREAM)
    ),
    "kernels import nothing of ours": lambda path, name: (
        path.startswith("worker/kernels/")
        and top(name) in PACKAGES
        and not name.startswith("worker.kernels")
    ),
}
"""Whether an import by a file, for type checkers or not, breaks each rule."""


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_the_imports_keep_the_rule(rule: str) -> None:
    edges = ((path, name) for path in FILES for name in imported_names(path))
    found = ((path.relative_to(ROOT).as_posix(), name) for path, name in edges)
    assert [edge for edge in found if FORBIDDEN[rule](*edge)] == []


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


def is_pure(path: Path) -> bool:
    # Most files need no parsing, which takes a second for all of them.
    is_named = PURE.search(path.read_text()) is not None
    return is_named and bool(PURE.search(ast.get_docstring(ast.parse(path.read_text())) or ""))


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
    assert [text for found in plans((package,)) for text in found.upward] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_resolve_inside_this_distribution(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parents[1] == ROOT
