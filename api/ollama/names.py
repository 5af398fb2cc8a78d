"""Names of models in Ollama's API, which have tags."""

from fastapi import Request

from api.ollama.models import LATEST
from api.pools.pool import Pool
from api.pools.pools import pools_of
from shared.errors import JobFailed
from shared.store.adapters.registry import Found


async def untagged(request: Request, model: object) -> object:
    """Return the name of a model in a request, without a tag that only Ollama's clients know.

    The tag stays if it belongs to the name of the base model or of an adapter.

    Raises:
        RedisUnavailable: the registry can't be read.
    """
    if not isinstance(model, str) or not model.endswith(LATEST) or model == LATEST:
        return model
    name = model.removesuffix(LATEST)
    pool = await pools_of(request).of_model(request, name)
    found = await _found(pool, name)
    if found is None or found.base is None:
        return name
    is_adapter = found.is_base and await pool.registry.adapter(LATEST.removeprefix(":"))
    return model if found.base.name == model or is_adapter else name


async def _found(pool: Pool, name: str) -> Found | None:
    """Return the model with this name, or None if the model exists but is quarantined."""
    try:
        return pool.models.remembered(name) or await pool.models.read(name)
    except JobFailed:
        return None
