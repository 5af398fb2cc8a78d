"""The OpenAPI document of a running app."""

import asyncio
from typing import Any

from fastapi import FastAPI


async def document_of(app: FastAPI, *, with_keys: bool = False) -> dict[str, Any]:
    """Return the document of `app` without the names of models. Callers don't change it.

    Building it takes a few hundred milliseconds. The first call does that, in a thread. `with_keys`
    says whether clients need API keys.
    """
    async with app.state.openapi_lock:
        document: dict[str, Any] = await asyncio.to_thread(app.state.openapi, with_keys=with_keys)
    return document
