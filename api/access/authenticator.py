"""Middleware that looks up the rights of a request's API key, or refuses the request.

Guards declare which rights a route needs (`api/http/guards.py`). `shared/api_keys.py` decides which
listening addresses need keys.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import replace

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from api.access.stored_keys import StoredKeys
from api.access.web_pages import WebPages
from api.http.errors import error_response, redis_error
from api.http.guards import API_KEY_HEADER, Guards, unauthenticated
from shared.api_keys import ADMIN, ApiKey
from shared.errors import JobError, RedisUnavailable
from shared.protocol.access.rights import Access, Scope
from shared.store.access.secret import id_of

ANONYMOUS = "default"
"""Tenant of all requests if the server needs no keys."""
METRICS_TENANT = "metrics"
"""Tenant of requests with the metrics key. It has no jobs."""
SCHEME = "bearer"


class Authenticator:
    """Finds the rights of API keys. Keys are in the settings or in Redis."""

    def __init__(
        self,
        keys: Sequence[ApiKey],
        metrics_key: str | None,
        guards: Guards,
        *,
        require_keys: bool,
        books_pool: str = "",
    ) -> None:
        """Create an authenticator. `keys` and `metrics_key` come from the settings.

        With `require_keys`, requests need a key even if no key is known. `books_pool` names the
        pool that stores the ledger. This name becomes the `Access.books_pool` of all
        requests.
        """
        self.guards = guards
        self._books_pool = books_pool
        self._keys = [(_digest(key.secret), _access_of(key)) for key in keys]
        self._metrics_key = _digest(metrics_key) if metrics_key else None
        self._needs_key = bool(keys) or require_keys
        monitoring = frozenset({Scope.METRICS} if keys else {Scope.METRICS, Scope.ADMIN})
        self._monitoring = Access(tenant=METRICS_TENANT, scopes=monitoring)
        self._anonymous = Access(
            tenant=ANONYMOUS,
            scopes=frozenset(Scope) - (monitoring if metrics_key else frozenset()),
            is_anonymous=True,
        )

    async def access_of(self, path: str, secret: str | None, stored: StoredKeys) -> Access | None:
        """Return the rights of a request for `path`, or None if the request has none.

        `secret` is the request's API key; None if it sends no key.

        Raises:
            RedisUnavailable: the rights depend on the stored keys, which can't be read.
        """
        access = await self._access_of(path, secret, stored)
        return access and replace(access, books_pool=self._books_pool)

    async def _access_of(self, path: str, secret: str | None, stored: StoredKeys) -> Access | None:
        if secret is not None and (access := self._configured(path, secret)):
            return access
        if self.guards.is_always_open(path):
            return None if self._needs_key else self._anonymous
        try:
            return await self._stored_or_anonymous(secret, stored)
        except RedisUnavailable:
            return self._without_redis(path, secret)

    def _configured(self, path: str, secret: str) -> Access | None:
        """Return the rights of a key that is in the settings, or None for another key.

        The key is compared with every known key, so that the duration doesn't reveal which one
        matches.
        """
        sent, found = _digest(secret), None
        for known, access in self._keys:
            if hmac.compare_digest(sent, known):
                found = access
        known_metrics = self._metrics_key
        if known_metrics is not None and hmac.compare_digest(sent, known_metrics):
            is_open = self._monitoring.scopes.intersection(self.guards.scopes(path))
            return self._monitoring if is_open else None
        return found

    async def _stored_or_anonymous(self, secret: str | None, stored: StoredKeys) -> Access | None:
        if secret is not None and id_of(secret) and (access := await stored.access_of(secret)):
            return access
        return None if self._needs_key or await stored.demanded() else self._anonymous

    def _without_redis(self, path: str, secret: str | None) -> Access | None:
        """Return the rights of a request while the stored keys can't be read.

        If the settings have no keys, Prometheus can still read the metrics of this process, which
        report that Redis is unreachable.

        Raises:
            RedisUnavailable: the rights depend on the stored keys.
        """
        if self.guards.is_key_optional(path):
            return None
        is_metrics = self.guards.scopes(path) == (Scope.METRICS,)
        if is_metrics and secret is None and not self._needs_key and not self._metrics_key:
            scopes = frozenset({Scope.METRICS})
            return Access(tenant=ANONYMOUS, scopes=scopes, is_anonymous=True)
        raise RedisUnavailable("the stored API keys can't be read")


def _access_of(key: ApiKey) -> Access:
    """Return the rights of a key from the settings. A key of the tenant `admin` has all scopes."""
    scopes = Scope if key.tenant == ADMIN else (Scope.INFERENCE,)
    return Access(tenant=key.tenant, scopes=frozenset(scopes))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("latin-1")).digest()


class KeyCheck:
    """ASGI middleware that sets `access` and `tenant` of a request, or refuses the request.

    The body of a refused request isn't read. `check_scope` checks later whether the rights suffice.
    Requests that this process makes itself already have `access` in the state of their ASGI scope.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator, web_pages: WebPages) -> None:
        self._app = app
        self._authenticator = authenticator
        self._web_pages = web_pages

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request with its rights to the app, or send the response that refuses it."""
        if scope["type"] == "http" and (refusal := await self._authenticate(scope)):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _authenticate(self, scope: AsgiScope) -> Response | None:
        """Set the rights of a request, or return the response that refuses it."""
        state, request, path = scope.setdefault("state", {}), Request(scope), scope["path"]
        if "access" not in state:
            stored = request.app.state.stored_keys
            try:
                access = await self._authenticator.access_of(path, _sent_key(scope), stored)
            except RedisUnavailable:
                return error_response(request, redis_error())
            if access is None and not self._authenticator.guards.is_open(path):
                return error_response(request, unauthenticated(request))
            if access and access.is_anonymous and (error := self._reason_to_refuse(request, path)):
                return error_response(request, error)
            state["access"] = access
        access = state["access"]
        state["tenant"] = access.tenant if access else None
        return None

    def _reason_to_refuse(self, request: Request, path: str) -> JobError | None:
        if self._authenticator.guards.is_always_open(path):
            return None
        return self._web_pages.reason_to_refuse(request.method, request.headers)


def _sent_key(scope: AsgiScope) -> str | None:
    """Return the API key in the request, or None if there is no key."""
    headers = dict(scope["headers"])
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.decode("latin-1").lower() == SCHEME:
        return str(key.strip().decode("latin-1"))
    key = headers.get(API_KEY_HEADER.encode())
    return key.strip().decode("latin-1") if key else None
