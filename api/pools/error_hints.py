"""Adds to errors what helps the client: a similar model, and what the first worker does."""

from dataclasses import replace

from fastapi import FastAPI, Request, Response

from api.access.model_rights import ModelNotFound
from api.http.errors import error_response, redis_error
from api.pools.model_names import ModelNames, most_similar
from api.pools.pools import pools_of
from api.pools.registered_base import NoBase
from shared.errors import RedisUnavailable
from shared.protocol.access.rights import Access
from shared.store.views.starts import WorkerStarts

LOADING_RETRY_S = 5
"""Seconds after which a client should try again while the first worker is loading."""


def add_error_hints(app: FastAPI) -> None:
    """Make `app` add hints to the errors of unknown models, and of pools without a base model."""
    app.add_exception_handler(ModelNotFound, _on_unknown_model)
    app.add_exception_handler(NoBase, _on_no_base)


async def _on_unknown_model(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ModelNotFound)
    access: Access = request.state.access
    try:
        pools = pools_of(request).shown_to(request)
        names = [name for pool in pools for name in await pool.part(ModelNames).get()]
    except RedisUnavailable:
        return error_response(request, redis_error())
    similar = most_similar(exc.name, names, access.allows)
    if similar is None:
        return error_response(request, exc.error)
    message = exc.error.message.replace(" GET ", f" Did you mean {similar!r}? GET ", 1)
    return error_response(request, replace(exc.error, message=message))


async def _on_no_base(request: Request, exc: Exception) -> Response:
    # The step names neither models nor machines, so every client may see it.
    assert isinstance(exc, NoBase)
    try:
        steps = [
            await pool.part(WorkerStarts).latest() for pool in pools_of(request).shown_to(request)
        ]
    except RedisUnavailable:
        return error_response(request, redis_error())
    step = next(filter(None, steps), None)
    if step is None:
        return error_response(request, exc.error)
    message = f"the first worker is loading: {step}, {step.elapsed_s:.0f} s after its start; "
    error = replace(exc.error, message=f"{message}try again in {LOADING_RETRY_S} s")
    return error_response(request, error, retry_after_s=LOADING_RETRY_S)
