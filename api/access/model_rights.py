"""Checks that a client may use a model, and creates the error for an unknown model.

All routes whose requests name a model use these functions.
"""

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.access.rights import Access
from shared.protocol.adapters import own_name
from shared.store.adapters.registry import Registry


async def may_use(registry: Registry, access: Access, model: str) -> bool:
    """Return whether the client may use a model.

    `model` may have any form that requests accept, such as `name@digest` or `base:name`.

    Raises:
        RedisUnavailable: the name of the base model can't be read.
    """
    if access.allows_all:
        return True
    return access.allows(own_name(model, await registry.base()))


async def check_model(registry: Registry, access: Access, model: str) -> None:
    """Check that the client may use a model. `model` has a form that `may_use` accepts.

    Raises:
        JobFailed: the client may not use it. The error is the same as for an unknown model.
        RedisUnavailable: the name of the base model can't be read.
    """
    if not await may_use(registry, access, model):
        raise ModelNotFound(model)


class ModelNotFound(JobFailed):
    """The name in a request belongs to neither the base model nor an adapter.

    The message begins with OpenAI's sentence, because clients match it.
    """

    def __init__(self, name: str) -> None:
        message = f"The model {name[:200]!r} does not exist or you do not have access to it. "
        message += "GET /v1/models lists all models."
        super().__init__(JobError(code=ErrorCode.MODEL_NOT_FOUND, message=message, param="model"))
        self.name = name
