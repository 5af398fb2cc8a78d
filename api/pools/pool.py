"""One pool as a front end sees it: a set of parts. Each route names the parts that it uses."""

from collections.abc import Iterable
from typing import TypeVar, cast

from api.pools.model_cache import ModelCache
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews

T = TypeVar("T")


class Pool:
    """Parts that a front end uses to serve one pool.

    A part is a store, or the objects of one feature. A pool has one part of each type.
    """

    def __init__(self, name: str, root_path: str, parts: Iterable[object]) -> None:
        """Collect the parts of the pool `name`.

        `root_path` is the prefix of the paths of the pool's routes. By default, it is empty for the
        first pool.
        """
        self.name = name
        self.root_path = root_path
        self._parts = {type(part): part for part in parts}
        self.registry = self.part(Registry)
        self.views = self.part(PoolViews)
        self.models = self.part(ModelCache)

    def part(self, kind: type[T]) -> T:
        """Return the part of type `kind`."""
        return cast("T", self._parts[kind])
