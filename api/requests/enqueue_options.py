"""Options with which a request's job is enqueued. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from api.requests.request_headers import RequestHeaders
from api.schema.base import JobRequest
from shared.protocol.enqueue import EnqueueOptions, IdempotencyKey


def enqueue_options(
    headers: RequestHeaders,
    request: JobRequest,
    *,
    path: str,
    raw: Mapping[str, Any],
    weight: float,
    key_id: str = "",
    books_pool: str = "",
) -> EnqueueOptions:
    """Return the options of the request's job.

    `path` is that of the endpoint, and `raw` the body as parsed JSON. The last three are the weight
    of the tenant, the id of a stored API key (empty for other keys), and `Access.books_pool`.
    """
    key = headers.idempotency_key
    return EnqueueOptions(
        idempotency=IdempotencyKey(key=key, body_digest=_digest(path, raw)) if key else None,
        keeps_running=headers.is_continued or bool(request.background),
        weight=weight,
        key_id=key_id,
        books_pool=books_pool,
    )


def _digest(path: str, raw: Mapping[str, Any]) -> str:
    """Return a digest of the request that depends on neither white space nor the order of keys."""
    canonical = orjson.dumps(raw, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\n".join((path.encode(), canonical))).hexdigest()
