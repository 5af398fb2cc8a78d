"""Route parameters that receive the pool of a request, or parts of the pool.

The pool is the one that the request's path names, or the one with the adapter or job that the path
names. Routes whose body names the model use `pools_of` instead.
"""

from typing import Annotated, TypeVar

from fastapi import Depends, Request

from api.pools.pool import Pool
from api.pools.pools import pools_of

T = TypeVar("T")

# These functions are coroutines because FastAPI calls others in a thread, which takes longer.


async def _pool(request: Request) -> Pool:
    return await pools_of(request).of_request(request)


InPool = Annotated[Pool, Depends(_pool)]
"""Type of a route parameter that receives the pool of the request."""


def part(kind: type[T]) -> T:
    """Return the default value of a route parameter that receives a part of the request's pool.

    For example, a route with the parameter `ledger: Ledger = part(Ledger)` uses the ledger.
    """

    async def of_pool(pool: InPool) -> T:
        return pool.part(kind)

    provided: T = Depends(of_pool)
    return provided
