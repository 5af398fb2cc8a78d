"""Loads an adapter from a source, for the routes of several APIs."""

from api.access.model_rights import check_model
from api.adapters.inspection import Inspector
from api.adapters.new_versions import NewVersions
from api.pools.pool import Pool
from api.pools.registered_base import registered_base
from shared.errors import ErrorCode, failed
from shared.protocol.access.rights import Access
from shared.protocol.adapters import Adapter
from shared.store.adapters.pins import Pins
from shared.store.adapters.refusals import already_loaded


async def check_name(
    pool: Pool, access: Access, name: str, *, replace: bool, replace_field: str
) -> None:
    """Check that an adapter may be loaded as `name`. Without `replace`, the name must be new.

    `replace_field` is the field of the request that sets `replace`.

    Raises:
        JobFailed: the client may not use the name, or it is taken.
        RedisUnavailable: the registry can't be read.
    """
    await check_model(pool.registry, access, name)
    base = await registered_base(pool.registry)
    if name == base.name:
        message = f"The lora adapter name '{name}' conflicts with a served base model. "
        raise failed(ErrorCode.ADAPTER_EXISTS, message + "Choose another name.", "lora_name")
    if not replace and (taken := await pool.registry.adapter(name)):
        raise already_loaded(name, taken.version, field=replace_field)


async def load(
    pool: Pool,
    access: Access,
    name: str,
    source: str,
    *,
    param: str,
    replace: bool,
    replace_field: str,
    is_pinned: bool,
) -> Adapter:
    """Have a worker check an adapter, make it the current version of its name, and return it.

    `param` is the name of the request field that contains the source. `replace` and `replace_field`
    have the same meaning as in `check_name`. With `is_pinned`, at least one worker keeps the
    adapter in memory.

    Raises:
        JobFailed: as in `check_name`, the adapter can't be served, or too many adapters are pinned.
        RedisUnavailable: Redis can't be reached.
    """
    await check_name(pool, access, name, replace=replace, replace_field=replace_field)
    inspector = pool.part(Inspector)
    adapter = await inspector.checked_adapter(access.tenant, name, source, param=param)
    await pool.part(NewVersions).load(adapter, replace=replace, by=access.actor)
    if is_pinned:
        await pool.part(Pins).set(name, 1, by=access.actor)
    return adapter
