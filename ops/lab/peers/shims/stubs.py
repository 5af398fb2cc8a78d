"""Stand-ins for packages that a peer's tests import, but that requests to a server don't need."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock


class Parsed(SimpleNamespace):
    """Stand-in for a peer's pydantic model: the fields of a JSON object as attributes."""

    @classmethod
    def model_validate(cls, content: Any) -> Any:
        """Return objects as `Parsed`, at any depth, and everything else as it is."""
        if isinstance(content, list):
            return [cls.model_validate(each) for each in content]
        if isinstance(content, dict):
            return cls(**{name: cls.model_validate(each) for name, each in content.items()})
        return content


class Stubs(MetaPathFinder, Loader):
    """Import hook that replaces the packages `names` by stubs.

    The attributes of a stub are those in `known`, and mocks for all other names.
    """

    def __init__(self, names: Sequence[str], known: Mapping[str, Any]) -> None:
        self._names = names
        self._known = known

    def install(self) -> None:
        """Make all later imports use the stubs, even if the packages are installed."""
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return a spec if `name` is a stub or a module in one, and otherwise None."""
        is_stub = any(name == stub or name.startswith(f"{stub}.") for stub in self._names)
        return ModuleSpec(name, self, is_package=True) if is_stub else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return an empty module."""
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module a function that returns its attributes: known ones or mocks."""
        module.__dict__["__getattr__"] = _attributes(self._known)


def _attributes(known: Mapping[str, Any]) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in known:
            return known[name]
        return type(name, (Parsed,), {}) if name.endswith("Response") else MagicMock(name=name)

    return get
