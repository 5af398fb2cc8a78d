"""Types of route parameters that receive the rights of a request."""

from typing import Annotated

from fastapi import Depends, Request

from shared.protocol.access.rights import Access

# These functions are coroutines because FastAPI calls others in a thread, which takes longer.


async def _tenant(request: Request) -> str:
    tenant: str = request.state.tenant
    return tenant


async def _access(request: Request) -> Access:
    access: Access = request.state.access
    return access


InTenant = Annotated[str, Depends(_tenant)]
"""Type of a route parameter that receives the tenant of the request."""
InAccess = Annotated[Access, Depends(_access)]
"""Type of a route parameter that receives the rights of the request."""
