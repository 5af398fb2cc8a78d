"""Reads the models that a client may use, for Ollama's API."""

from dataclasses import replace

from fastapi import Request

from api.access.model_rights import ModelNotFound, check_model
from api.ollama.models import ServedModel
from api.pools.pool import Pool
from api.pools.pools import pools_of
from shared.protocol.access.rights import Access


async def served_models(request: Request, access: Access) -> list[ServedModel]:
    """Return the models that a request may list, pool by pool.

    An adapter is listed as `base:adapter` if an earlier pool has a model with the adapter's name.

    Raises:
        RedisUnavailable: the registry or the workers can't be read.
    """
    models: dict[str, ServedModel] = {}
    for pool in pools_of(request).shown_to(request):
        for model in await _of_pool(pool):
            if not access.allows(model.name):
                continue
            is_taken = model.name in models and model.adapter is not None
            name = f"{model.base.name}:{model.name}" if is_taken else model.name
            models.setdefault(name, replace(model, name=name))
    return list(models.values())


async def served_model(request: Request, access: Access, name: str) -> ServedModel:
    """Return a model. `name` may have any form that requests accept.

    Raises:
        JobFailed: there is no such model, the client may not use it, or it is quarantined.
        RedisUnavailable: the registry or the workers can't be read.
    """
    pool = await pools_of(request).of_model(request, name)
    await check_model(pool.registry, access, name)
    found = await pool.registry.find(name)
    if found.base is None or found.version is None:
        raise ModelNotFound(name)
    adapter = None if found.is_base else found.adapter
    workers = await pool.views.workers()
    return ServedModel(name=name, base=found.base, adapter=adapter, workers=workers)


async def _of_pool(pool: Pool) -> list[ServedModel]:
    """Return a pool's base model and adapters; none if it has no base model."""
    if (base := await pool.registry.base()) is None:
        return []
    adapters, workers = await pool.registry.adapters(), await pool.views.workers()
    of_base = ServedModel(name=base.name, base=base, adapter=None, workers=workers)
    return [of_base, *(replace(of_base, name=each.name, adapter=each) for each in adapters)]
