"""The rule of the house: api -> shared <- worker, and downward only inside the worker."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "worker", "shared", "ops")
MAY_IMPORT = {
    "shared": {"shared"},
    "api": {"api", "shared"},
    "worker": {"worker", "shared"},
    "ops": {"ops", "api", "worker", "shared"},
}
# Inside the worker each layer may use the ones after it.
WORKER_LAYERS = ("engine", "model", "lora", "kernels")
TORCH_STACK = {"torch", "transformers", "peft", "safetensors"}
WEB_STACK = {"fastapi", "starlette", "uvicorn"}
REDIS_FILES = {
    "shared/store/connection.py",
    "shared/store/durability.py",
    "shared/store/sentinel.py",
    "shared/store/queue.py",
    "shared/store/token_streams.py",
    "shared/store/registry.py",
}
POLICY_FILES = {
    "worker/engine/request.py",
    "worker/engine/block_manager.py",
    "worker/engine/scheduler.py",
    "worker/engine/adapter_lru.py",
    "worker/adapters/flags.py",
    "worker/lora/memory/pages.py",
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
EDGES = [(p.relative_to(ROOT).as_posix(), name) for p in FILES for name in imports(p)]


def violations(is_wrong: object) -> list[str]:
    assert callable(is_wrong)
    return [f"{path} imports {name}" for path, name in EDGES if is_wrong(path, name)]


def top(name: str) -> str:
    return name.split(".")[0]


def layer(name: str) -> int:
    """Position of a worker module in the layers; -1 for the outer files."""
    parts = name.replace("/", ".").split(".")
    known = len(parts) > 1 and parts[0] == "worker" and parts[1] in WORKER_LAYERS
    return WORKER_LAYERS.index(parts[1]) if known else -1


def test_packages_import_only_what_they_may() -> None:
    assert (
        violations(
            lambda p, n: top(n) in PACKAGES and top(n) not in MAY_IMPORT[top(p.replace("/", "."))]
        )
        == []
    )


def test_api_and_shared_never_import_the_torch_stack() -> None:
    assert (
        violations(lambda p, n: p.startswith(("api/", "shared/")) and top(n) in TORCH_STACK) == []
    )


def test_worker_and_shared_never_import_the_web_stack() -> None:
    assert (
        violations(lambda p, n: p.startswith(("worker/", "shared/")) and top(n) in WEB_STACK) == []
    )


def test_redis_is_named_in_few_files() -> None:
    allowed = REDIS_FILES | {"worker/control.py"}
    assert (
        violations(lambda p, n: not p.startswith("ops/") and top(n) == "redis" and p not in allowed)
        == []
    )


def test_worker_layers_import_downward_only() -> None:
    assert violations(lambda p, n: n.startswith("worker.") and layer(p) > layer(n)) == []


def test_the_engine_and_below_know_neither_redis_nor_asyncio() -> None:
    assert violations(lambda p, n: layer(p) >= 0 and top(n) in {"redis", "asyncio"}) == []


def test_policy_files_never_import_torch() -> None:
    assert violations(lambda p, n: p in POLICY_FILES and top(n) in TORCH_STACK) == []


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


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_resolve_inside_this_distribution(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parents[1] == ROOT
