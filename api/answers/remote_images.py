"""Fetches the images of a request before its body is validated."""

from typing import Any

from fastapi import Request

from api.access.model_rights import check_model
from api.answers.parts import Intake
from api.http.headers import IDEMPOTENCY_HEADER
from api.http.turns.body_checks import begin_check
from api.images.fetcher import ImageFetcher
from api.images.urls import remote_images, with_url
from api.pools.pools import pools_of
from shared.protocol.access.rights import Access

_STAND_IN = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCBd81ytg"
    "AAAABJRU5ErkJggg=="
)
"""Data URL that replaces the images of a repeated request, because its job already has them."""


async def with_remote_images(
    request: Request, access: Access, raw: dict[str, Any]
) -> dict[str, Any]:
    """Return the body `raw` with data URLs in place of the images' http and https URLs.

    `raw` isn't changed, because its digest must be the same when a client repeats the request with
    an idempotency key. If the model reads no images, nothing is fetched, because the request will
    be refused. If an earlier request with the same idempotency key has a job, nothing is fetched
    either, and a stand-in replaces each image.

    Raises:
        JobFailed: an image can't be fetched, or the client may not use the model.
        RateLimited: the images of too many other requests are being fetched.
        RedisUnavailable: Redis can't be reached.
    """
    places, model = remote_images(raw), raw.get("model")
    if not places:
        return raw
    pool = await pools_of(request).of_model(request, model)
    base = await pool.registry.base()
    if base is None or not base.takes_images:
        return raw
    await check_model(pool.registry, access, model if isinstance(model, str) else base.name)
    if await _is_repeated(request, access, pool.part(Intake)):
        request.state.is_repeated = True
        urls = [_STAND_IN] * len(places)
    else:
        urls = await pool.part(ImageFetcher).data_urls(access.tenant, places)
    for place, url in zip(places, urls, strict=True):
        raw = with_url(raw, place.keys, url)
        request.state.num_body_bytes += len(url)
    await begin_check(request)
    return raw


async def _is_repeated(request: Request, access: Access, intake: Intake) -> bool:
    key = request.headers.get(IDEMPOTENCY_HEADER)
    return key is not None and all(await intake.queue.have_jobs(access.tenant, [key]))
