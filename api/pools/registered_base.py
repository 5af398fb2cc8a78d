"""The base model of a pool, for requests that need one."""

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.adapters import BaseModel
from shared.store.adapters.registry import Registry


class NoBase(JobFailed):
    """No worker has registered a base model yet."""

    def __init__(self) -> None:
        message = "no worker has registered a base model; start a worker, or try again soon"
        super().__init__(JobError(code=ErrorCode.UNAVAILABLE, message=message))


async def registered_base(registry: Registry) -> BaseModel:
    """Return the pool's base model.

    Raises:
        JobFailed: no worker has registered a base model.
        RedisUnavailable: the registry can't be read.
    """
    base = await registry.base()
    if base is None:
        raise NoBase
    return base
