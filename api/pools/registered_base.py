"""The base model of a pool, for requests that need one."""

from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.adapters import BaseModel
from shared.store.adapters.registry import Registry


async def registered_base(registry: Registry) -> BaseModel:
    """Return the pool's base model.

    Raises:
        JobFailed: no worker has registered a base model.
        RedisUnavailable: the registry can't be read.
    """
    base = await registry.base()
    if base is None:
        raise no_base()
    return base


def no_base() -> JobFailed:
    """Return the failure of a request while no worker has registered a base model."""
    message = "no worker has registered a base model; start a worker, or try again soon"
    return failed(ErrorCode.UNAVAILABLE, message)
