"""Reads which architectures vLLM lists, and for which of them it applies LoRA.

`python -m ops.lab.generate.models.vllm SITE_PACKAGES` reads the sources of the vLLM in this folder,
and stores the names in `vllm.json`. It doesn't import vLLM.
"""

import ast
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import orjson

FILE = Path(__file__).parent / "vllm.json"
_TABLES = {"_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS"}
"""Tables of the registry that list models which generate text."""
_MODELS = "vllm.model_executor.models"
_LORA = "SupportsLoRA"


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmModels:
    """The architectures that one version of vLLM lists."""

    version: str
    lora: dict[str, bool]
    """For each architecture, whether vLLM's class for it supports LoRA."""


def read_stored(file: Path = FILE) -> VllmModels:
    """Read the names that `main` stored."""
    return VllmModels(**orjson.loads(file.read_bytes()))


def read_sources(site_packages: Path) -> VllmModels:
    """Read the registry of the vLLM that is installed in `site_packages`."""
    (info,) = site_packages.glob("vllm*-*.dist-info")
    sources = _Sources(site_packages)
    registry = sources.tree(f"{_MODELS}.registry")
    found: dict[str, bool] = {}
    for node in registry.body if registry else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in _TABLES:
            for name, (module, cls) in ast.literal_eval(node.value).items():
                path = module if module.startswith("vllm.") else f"{_MODELS}.{module}"
                found[name] = sources.has_base(path, cls, _LORA)
    version = info.name.removesuffix(".dist-info").partition("-")[2]
    return VllmModels(version=version, lora=dict(sorted(found.items())))


class _Sources:
    """The classes of a package, found by parsing its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tree = cache(self._parse)

    def has_base(self, module: str, cls: str, base: str) -> bool:
        """Return whether the class `cls` of a module is `base` or inherits from it."""
        if cls == base:
            return True
        tree = self.tree(module)
        for node in ast.walk(tree) if tree else []:
            if isinstance(node, ast.ClassDef) and node.name == cls:
                names = [ast.unparse(parent).rpartition(".")[2] for parent in node.bases]
                return any(self.has_base(module, name, base) for name in names if name != cls)
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == cls:
                        return self.has_base(self._absolute(module, node), alias.name, base)
        return False

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        is_package = (self._folder / module.replace(".", "/")).is_dir()
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        return ".".join([*parts, node.module] if node.module else parts)

    def _parse(self, module: str) -> ast.Module | None:
        path = self._folder / module.replace(".", "/")
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.exists():
                return ast.parse(file.read_text())
        return None


def main(site_packages: Path) -> None:
    """Write to `vllm.json` the architectures that the vLLM installed in `site_packages` lists."""
    content = asdict(read_sources(site_packages))
    FILE.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
