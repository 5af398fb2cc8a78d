"""Fetches the images of a request before its body is validated."""

from copy import deepcopy
from typing import Any

from fastapi import Request

from api.access.model_rights import check_model
from api.images.fetcher import ImageFetcher
from api.images.urls import remote_images
from api.pools.pools import pools_of
from shared.protocol.access.rights import Access


async def with_remote_images(
    request: Request, access: Access, raw: dict[str, Any]
) -> dict[str, Any]:
    """Return the body `raw` with data URLs in place of the images' http and https URLs.

    `raw` stays as it is, because its digest belongs to an idempotency key. Nothing is fetched for a
    model that reads no images, since the request will be refused.

    Raises:
        JobFailed: an image can't be fetched, or the client may not use the model.
        RedisUnavailable: the registry can't be read.
    """
    model = raw.get("model")
    if not remote_images(raw) or not isinstance(model, str):
        return raw
    pool = await pools_of(request).of_model(request, model)
    await check_model(pool.registry, access, model)
    base = await pool.registry.base()
    if base is None or not base.takes_images:
        return raw
    inlined = deepcopy(raw)
    await pool.part(ImageFetcher).inline(access.tenant, remote_images(inlined))
    return inlined
