"""Types of route parameters that receive parts of the pool that a request is for.

That is the pool in the path of the request, or of the adapter or job that the path names. Routes
whose body names the model ask `pools_of` for its pool.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from api.pools.pool import Pool
from api.pools.pools import pools_of
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews

T = TypeVar("T")

# These functions are coroutines because FastAPI calls others in a thread, which takes longer.


async def _pool(request: Request) -> Pool:
    return await pools_of(request).of_request(request)


InPool = Annotated[Pool, Depends(_pool)]
"""Type of a route parameter that receives the pool of the request."""


def part_of_pool(kind: type[T]) -> Callable[[Pool], Awaitable[T]]:
    """Return a dependency that provides the part of type `kind` of the request's pool."""

    async def part(pool: InPool) -> T:
        return pool.part(kind)

    return part


InRegistry = Annotated[Registry, Depends(part_of_pool(Registry))]
InViews = Annotated[PoolViews, Depends(part_of_pool(PoolViews))]
InQueue = Annotated[Queue, Depends(part_of_pool(Queue))]
