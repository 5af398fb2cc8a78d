"""/v1/keys: the API keys that Redis stores."""

from fastapi import APIRouter, Depends, Request

from api.access.authenticator import METRICS_TENANT
from api.access.key_book import KeyBook
from api.http.body import read_json_object
from api.http.guards import HINTS, InAccess, Work, guarded
from api.http.validation import validate
from api.openapi.entries import MEANINGS, Responses, errors, query_parameters, takes
from api.pools.pools import pools_of
from api.schema.keys import (
    CreatedKey,
    CreateKeyRequest,
    KeyBody,
    KeyList,
    OpenPoolQuery,
    RevokeKeyQuery,
)
from shared.api_keys import is_loopback
from shared.errors import ErrorCode, failed
from shared.protocol.access.rights import Scope
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore


async def _book(request: Request, access: InAccess) -> KeyBook:
    """Return the keys of the front end, which are those of its first pool.

    The metrics key may not manage keys, although it has the scope `admin` on servers without keys:
    otherwise, whoever reads metrics could grant themselves every right. Clients without a key may
    manage keys if the server listens only on a loopback address.

    Raises:
        JobFailed: the client may not manage keys. `check_scope` checks the scope.
    """
    pool = pools_of(request).all[0]
    if access.tenant == METRICS_TENANT and not access.key_id:
        reason = f"the metrics key may not manage keys; this needs {HINTS[Scope.ADMIN]}"
        raise failed(ErrorCode.PERMISSION_DENIED, reason)
    if access.is_anonymous and not is_loopback(pool.part(ApiSettings).host):
        raise failed(
            ErrorCode.PERMISSION_DENIED,
            "clients without a key may not create the first key of a server that is reachable from "
            "the network; start it with --api-key admin:KEY, or run `lorikeet keys create --tenant "
            "NAME --redis-url URL` where Redis can be reached",
        )
    return KeyBook(pool.part(KeyStore), access)


InBook: KeyBook = Depends(_book)
router = APIRouter(tags=["access"])


def _errors(*statuses: int) -> Responses:
    meanings = {
        **MEANINGS,
        403: "The key may not manage keys.",
        404: "No key has this id.",
        409: "Nobody could manage keys afterwards, and allow_lockout isn't set.",
        503: "Redis is unavailable at present.",
    }
    return errors(*statuses, meanings=meanings)


@router.get("/v1/keys", summary="List API keys", responses=_errors(403, 503))
@guarded(Work.SUMMARY, Scope.ADMIN)
async def list_keys(book: KeyBook = InBook) -> KeyList:
    """Return all stored keys, oldest first, without their secrets."""
    return await book.listed()


@router.post(
    "/v1/keys",
    summary="Create an API key",
    status_code=201,
    responses=_errors(400, 403, 409, 413, 503),
    openapi_extra=takes(
        CreateKeyRequest,
        tenant={"tenant": "red", "models": ["sql-*"], "limits": {"requests_per_minute": 60}},
        administrator={"tenant": "ops", "scopes": list(Scope)},
    ),
)
@guarded(Work.KEY, Scope.ADMIN)
async def create_key(request: Request, book: KeyBook = InBook) -> CreatedKey:
    """Create an API key. Only this response has its secret, because Redis stores only a digest.

    Within two seconds after the first key is created, front ends begin to refuse requests
    without a key. If
    nobody has a key yet, the first one gets all scopes, so that its owner can manage keys.
    """
    return await book.create(validate(CreateKeyRequest, await read_json_object(request)))


@router.delete(
    "/v1/keys/{key_id}",
    summary="Revoke an API key",
    responses=_errors(400, 403, 404, 409, 503),
    openapi_extra={"parameters": query_parameters(RevokeKeyQuery)},
)
@guarded(Work.RECORD, Scope.ADMIN)
async def revoke_key(request: Request, key_id: str, book: KeyBook = InBook) -> KeyBody:
    """Revoke a key. It enqueues nothing from now on. May be repeated."""
    query = validate(RevokeKeyQuery, dict(request.query_params))
    return await book.revoke(key_id, allows_lockout=query.allow_lockout == "true")


@router.delete(
    "/v1/keys",
    summary="Revoke all API keys and open the pool",
    responses=_errors(400, 403, 503),
    openapi_extra={"parameters": query_parameters(OpenPoolQuery)},
)
@guarded(Work.RECORD, Scope.ADMIN)
async def open_pool(request: Request, book: KeyBook = InBook) -> KeyList:
    """Revoke all stored keys, and accept requests without a key until the next key is created.

    Front ends follow within two seconds. Those with keys in their settings, or with
    `--require-keys`, still refuse requests without a key.
    """
    validate(OpenPoolQuery, dict(request.query_params))
    return await book.open()
