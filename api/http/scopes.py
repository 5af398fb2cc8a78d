"""The key that each route needs. Routes that aren't listed here are refused."""

from collections.abc import Mapping

from fastapi import Request

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.access.rights import Access, Scope

API_KEY_HEADER = "x-api-key"
"""Header in which Anthropic's clients send the key. The header Authorization overrides it."""
OPEN = frozenset(
    {
        *("/", "/health", "/version", "/static/{path:path}"),
        *("/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"),
        "/docs/favicon-32x32.png",
    }
)
"""Routes that never need a key, for load balancers and browsers. They show no data of the pool."""
OPEN_PREFIX = "/static/"
"""Beginning of the paths of the console's files."""
KEY_OPTIONAL = frozenset({"/ready", "/ready/worker", "/ping", "/openapi.json"})
"""Routes that need no key, and that tell more to clients with one: the number of workers, and the
names of models."""

_PATHS: Mapping[tuple[Scope, ...], tuple[str, ...]] = {
    (Scope.INFERENCE,): (
        *("/v1/chat/completions", "/v1/completions", "/v1/embeddings"),
        *("/v1/messages", "/v1/messages/count_tokens"),
        *("/v1/responses", "/v1/responses/input_tokens", "/v1/responses/{response_id}"),
        *("/v1/responses/{response_id}/cancel", "/v1/responses/{response_id}/input_items"),
        *("/tokenize", "/detokenize", "/tokenizer_info"),
        *("/v1/jobs", "/v1/jobs/{job_id}", "/v1/jobs/{job_id}/stream"),
        *("/v1/jobs/{job_id}/cancel", "/v1/jobs/{job_id}/retry"),
        *("/v1/files", "/v1/files/{file_id}", "/v1/files/{file_id}/content"),
        *("/v1/batches", "/v1/batches/{batch_id}", "/v1/batches/{batch_id}/cancel"),
        *("/server_info", "/get_world_size"),
    ),
    (Scope.INFERENCE, Scope.ADAPTERS): ("/v1/models", "/v1/models/{model_id:path}"),
    (Scope.INFERENCE, Scope.ADMIN): ("/v1/usage",),
    (Scope.ADAPTERS,): (
        *("/v1/adapters", "/v1/adapters/validate"),
        *("/v1/adapters/{name:path}", "/v1/adapters/{name:path}/rollback"),
        *("/v1/adapters/{name:path}/candidate", "/v1/adapters/{name:path}/candidate/promote"),
        "/v1/adapters/{name:path}/pin",
        *("/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
        *("/pause", "/resume"),
    ),
    (Scope.METRICS,): ("/metrics", "/load"),
    (Scope.ADMIN,): ("/v1/pool", "/v1/pool/events", "/v1/audit_log"),
}
SCOPES: Mapping[str, tuple[Scope, ...]] = {
    path: scopes for scopes, paths in _PATHS.items() for path in paths
}
"""Scopes of each other route by the template of its path. A key needs one of them."""
HINTS: Mapping[Scope, str] = {
    Scope.INFERENCE: "a key with the scope inference",
    Scope.ADAPTERS: "a key with the scope adapters, or one of the tenant admin (the server's "
    "--api-key admin:KEY)",
    Scope.METRICS: "the metrics key (the server's --metrics-key), a key with the scope metrics, or "
    "one of the tenant admin",
    Scope.ADMIN: "a key with the scope admin, or one of the tenant admin (the server's "
    "--api-key admin:KEY)",
}


def is_always_open(path: str) -> bool:
    """Return whether keys make no difference for `path`. Such requests never wait for Redis."""
    return path in OPEN or path.startswith(OPEN_PREFIX)


def is_open(path: str) -> bool:
    """Return whether requests for `path` need no key."""
    return path in KEY_OPTIONAL or is_always_open(path)


async def check_scope(request: Request) -> None:
    """Check that the request's key opens its route. The app calls this before every route.

    Raises:
        JobFailed: the key lacks the scope, or an anonymous request needs a key here.
    """
    path: str = request.scope["route"].path
    if path in OPEN or path in KEY_OPTIONAL:
        return
    access: Access = request.state.access
    scopes = SCOPES.get(path, ())
    if access.scopes.isdisjoint(scopes):
        raise JobFailed(unauthenticated(request) if access.is_anonymous else _denied(scopes))


def unauthenticated(request: Request) -> JobError:
    """Return the error of a request without a valid key."""
    is_sent = "authorization" in request.headers or API_KEY_HEADER in request.headers
    message = "unknown API key" if is_sent else "an API key is needed"
    return JobError(
        code=ErrorCode.INVALID_API_KEY,
        message=f"{message}; send it in the header `Authorization: Bearer KEY`",
    )


def _denied(scopes: tuple[Scope, ...]) -> JobError:
    hint = HINTS[scopes[0]] if scopes else "nothing: no key opens it"
    message = f"this API key may not use this URL; it needs {hint}"
    return JobError(code=ErrorCode.PERMISSION_DENIED, message=message)
