"""The OpenAPI document of a running app."""

import asyncio
from typing import Any

from fastapi import FastAPI


async def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the document of `app` without the names of models. Callers don't change it.

    Building it takes a few hundred milliseconds. The first call does that, in a thread.
    """
    async with app.state.openapi_lock:
        document: dict[str, Any] = await asyncio.to_thread(app.state.openapi)
    return document
