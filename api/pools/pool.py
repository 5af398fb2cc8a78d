"""One pool as a front end sees it: its parts, of which each route names those that it touches."""

from collections.abc import Iterable
from typing import TypeVar, cast

from api.pools.model_cache import ModelCache
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews

T = TypeVar("T")


class Pool:
    """Parts with which a front end serves one pool.

    A part is a store, or the objects of one feature. There is one of each type.
    """

    def __init__(
        self,
        name: str,
        root_path: str,
        *,
        registry: Registry,
        views: PoolViews,
        models: ModelCache,
        parts: Iterable[object],
    ) -> None:
        """Collect the parts of a pool.

        Args:
            name: name of the pool.
            root_path: path before those of the pool's routes; empty for the first pool by default.
            registry: base model and adapters.
            views: jobs and workers.
            models: models of the registry that requests have named.
            parts: all other parts.
        """
        self.name = name
        self.root_path = root_path
        self.registry = registry
        self.views = views
        self.models = models
        self._parts = {type(part): part for part in (registry, views, models, *parts)}

    def part(self, kind: type[T]) -> T:
        """Return the part of type `kind`."""
        return cast("T", self._parts[kind])
