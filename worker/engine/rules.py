"""Rules that every engine applies to its requests and adapters. Pure."""

import hashlib
from collections.abc import Container

from shared.errors import AdapterRejected, ErrorCode, JobError
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.interface import AdapterImage
from worker.engine.request import Request

STEP_FAILED = JobError(code=ErrorCode.INTERNAL, message="the engine step failed; see the log")
OUT_OF_MEMORY = JobError(
    code=ErrorCode.UNAVAILABLE,
    message="the worker ran out of memory while it computed a single token of this request; try "
    "again later",
)

NO_TOKEN_LEFT = JobError(
    code=ErrorCode.INVALID_VALUE,
    message="allowed_token_ids, bad_words, min_tokens and the schema together leave no token that "
    "the answer could continue with",
)


def not_resident(request: Request) -> JobError:
    """Return the error of a request whose adapter isn't resident."""
    return JobError(
        code=ErrorCode.ADAPTER_UNAVAILABLE, message=f"adapter {request.version} isn't resident"
    )


def prefix_key(weights_digest: str, tenant: str, salt: str = "") -> bytes:
    """Return a hash of an adapter's weights, a tenant and the client's salt.

    Only requests with equal hashes share the KV blocks of a common prefix.

    `weights_digest` is empty for the base model.
    """
    return hashlib.sha256("\0".join((weights_digest, tenant, salt)).encode()).digest()


def reason_to_reject(
    request: Request, residents: Container[AdapterVersion], *, max_model_len: int
) -> JobError | None:
    """Return the error of a request that can't run, or None if it can.

    `residents` are the resident adapters. A sequence may have at most `max_model_len` tokens.
    """
    if request.version is not None and request.version not in residents:
        return not_resident(request)
    if request.num_tokens >= max_model_len + (request.embedding is not None):
        return JobError(
            code=ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            message=f"the prompt has {request.num_tokens} tokens, and the model's context is "
            f"limited to {max_model_len}: shorten it",
        )
    return None


def finish_reason(request: Request, token: int, *, max_model_len: int) -> FinishReason | None:
    """Return why a request ends after `token`, its latest output token, or None if it continues."""
    if token in request.stop_ids:
        return FinishReason.STOP
    if len(request.output_ids) >= request.max_tokens or request.num_tokens >= max_model_len:
        return FinishReason.LENGTH
    return None


def is_restricted(request: Request) -> bool:
    """Return whether the client restricts the output so much that perhaps no token is left."""
    sampling = request.sampling
    return bool(sampling.allowed_token_ids or sampling.bad_words)


def check_size(image: AdapterImage, *, max_bytes: int) -> None:
    """Raise `AdapterRejected` if an adapter is larger than the adapter memory, `max_bytes`."""
    if image.num_bytes > max_bytes:
        raise AdapterRejected(
            f"adapter {image.version} takes {image.num_bytes} bytes, but --adapter-memory-mb "
            f"is {max_bytes} bytes in total; raise it"
        )
