"""Describes registered adapters to their managers."""

from api.access.model_rights import model_not_found
from api.adapters.bodies import adapter_body, version_body
from api.pools.registered_base import registered_base
from api.schema.adapters import AdapterBody, AdapterList
from shared.errors import JobFailed
from shared.protocol.access.rights import Access
from shared.protocol.adapters import BaseModel
from shared.store.adapters.adapter_views import AdapterView, AdapterViews
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews


class ShownAdapters:
    """Bodies of responses about the adapters of one pool."""

    def __init__(self, registry: Registry, adapter_views: AdapterViews, views: PoolViews) -> None:
        self._registry = registry
        self._adapter_views = adapter_views
        self._views = views

    async def view(self, name: str) -> AdapterView:
        """Return the view of an adapter.

        Raises:
            JobFailed: the name isn't registered. Another client may just have unloaded it.
            RedisUnavailable: the registry can't be read.
        """
        view = await self._adapter_views.adapter(name)
        if view is None:
            raise JobFailed(model_not_found(name))
        return view

    async def one(self, name: str, base: BaseModel) -> AdapterBody:
        """Return the response body for an adapter, which runs on `base`.

        Raises:
            JobFailed: as `view`.
            RedisUnavailable: the registry can't be read.
        """
        return adapter_body(await self.view(name), base, await self._views.workers())

    async def all(self, access: Access) -> AdapterList:
        """Return the adapters that a client may use, and their versions that end soon.

        Raises:
            JobFailed: no worker has registered a base model.
            RedisUnavailable: the registry can't be read.
        """
        base = await registered_base(self._registry)
        views = await self._adapter_views.adapters()
        retired = await self._adapter_views.retired()
        workers = await self._views.workers()
        return AdapterList(
            data=[
                adapter_body(view, base, workers)
                for view in views
                if access.allows(view.current.adapter.name)
            ],
            draining=[
                version_body(view, workers) for view in retired if access.allows(view.adapter.name)
            ],
        )
