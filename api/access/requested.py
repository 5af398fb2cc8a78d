"""Type of route parameters that receive the rights of a request."""

from typing import Annotated

from fastapi import Depends, Request

from shared.protocol.access.rights import Access


# This is a coroutine because FastAPI calls other functions in a thread, which takes longer.
async def _access(request: Request) -> Access:
    access: Access = request.state.access
    return access


InAccess = Annotated[Access, Depends(_access)]
"""Type of a route parameter that receives the rights of the request."""
