"""Returns the OpenAPI document of a running app. `api/openapi/document.py` builds it."""

import asyncio
from typing import Any

from fastapi import FastAPI


async def document_of(app: FastAPI, *, with_keys: bool = False) -> dict[str, Any]:
    """Return the document of `app` without the names of models. Callers must not change it.

    The first call builds the document in a thread, which takes a few hundred milliseconds.
    `with_keys` states whether clients need API keys.
    """
    async with app.state.openapi_lock:
        document: dict[str, Any] = await asyncio.to_thread(app.state.openapi, with_keys=with_keys)
    return document
