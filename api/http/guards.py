"""Guards: each route declares the API key that it needs and the kind of work that it does.

The app checks the key of a request before its route runs. The route receives the rights of the key
as a parameter of type `InAccess`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request

from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.access.rights import Access, Scope

API_KEY_HEADER = "x-api-key"
"""Header in which Anthropic's clients send the key. The header Authorization overrides it."""
HINTS: Mapping[Scope, str] = {
    Scope.INFERENCE: "a key with the scope inference",
    Scope.ADAPTERS: "a key with the scope adapters, or one of the tenant admin (the server's "
    "--api-key admin:KEY)",
    Scope.METRICS: "the metrics key (the server's --metrics-key), a key with the scope metrics, or "
    "one of the tenant admin",
    Scope.ADMIN: "a key with the scope admin, or one of the tenant admin (the server's "
    "--api-key admin:KEY)",
}
"""Describes, for each scope, the API keys that have it. Errors for other keys contain this text."""
_ATTRIBUTE = "lorikeet_guard"
F = TypeVar("F", bound=Callable[..., Any])


class Key(Enum):
    """How a route treats API keys."""

    NEEDED = auto()
    OPTIONAL = auto()
    """Clients with a key get more data: the number of workers, and the names of models."""
    IGNORED = auto()
    """For load balancers and browsers. The route shows no data of the pool."""


class Work(Enum):
    """Kinds of work that a request can ask for. `SECURITY.md` lists the bounds."""

    ANSWER = "answers"
    TOKENIZATION = "tokenizations"
    INSPECTION = "checks of adapters"
    CHANGE = "changes of adapters"
    KEY = "changes of API keys"
    JOBS = "cancellations and retries of many jobs"
    CONTROL = "ends of a tenant's requests, and pauses"
    ADAPTER_UPLOAD = "uploads of adapters"
    FILE_UPLOAD = "uploads of files"
    BATCH = "batches"
    RECORD = "changes of one record"
    LIST = "lists"
    READ = "reads of one record"
    LOOKUP = "look-ups of a model"
    CONTENT = "downloads of files"
    STREAM = "streams of existing jobs and of the pool"
    SUMMARY = "summaries of the pool"
    CONSTANT = "constant answers"


@dataclass(frozen=True, slots=True)
class Guard:
    """The kind of work that a route does, and the API key that it needs."""

    work: Work
    scopes: tuple[Scope, ...] = ()
    """A key needs one of these scopes."""
    key: Key = Key.NEEDED


def guarded(work: Work, *scopes: Scope, key: Key = Key.NEEDED) -> Callable[[F], F]:
    """Declare the guard of a route. Write this decorator below the decorator that has the path.

    Requests to a route without a guard are refused.
    """

    def declare(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, Guard(work, scopes, key))
        return endpoint

    return declare


def guard_of(route: Any) -> Guard | None:
    """Return the guard of a route, or None if it declares none."""
    return getattr(route.endpoint, _ATTRIBUTE, None)


class Guards:
    """Guards of an app's routes."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        """Collect the guards of the routes of `routers`.

        Raises:
            ValueError: a route has no guard, or the methods of a path need different keys.
        """
        self.operations: dict[tuple[str, str], Guard] = {}
        """Guard of each method and path."""
        self._by_path: dict[str, Guard] = {}
        for router in routers:
            for route in router.routes:
                self._add(route)
        self._open_prefixes = tuple(
            path.partition("{")[0]
            for path, guard in self._by_path.items()
            if guard.key is Key.IGNORED and "{" in path
        )

    def _add(self, route: Any) -> None:
        guard = guard_of(route)
        if guard is None:
            raise ValueError(f"{route.path}: the route declares no guard")
        first = self._by_path.setdefault(route.path, guard)
        if (first.scopes, first.key) != (guard.scopes, guard.key):
            raise ValueError(f"{route.path}: its methods need different keys")
        self.operations |= {(method, route.path): guard for method in route.methods}

    def scopes(self, path: str) -> tuple[Scope, ...]:
        """Return the scopes of the route with the path template `path`; none for an unknown one."""
        guard = self._by_path.get(path)
        return guard.scopes if guard else ()

    def is_always_open(self, path: str) -> bool:
        """Return whether API keys don't affect requests for `path`, which then never need Redis."""
        return self._has(path, Key.IGNORED) or path.startswith(self._open_prefixes)

    def is_key_optional(self, path: str) -> bool:
        """Return whether requests for `path` need no key, but return more data with a key."""
        return self._has(path, Key.OPTIONAL)

    def is_open(self, path: str) -> bool:
        """Return whether requests for `path` need no key."""
        return self.is_key_optional(path) or self.is_always_open(path)

    def _has(self, path: str, key: Key) -> bool:
        guard = self._by_path.get(path)
        return guard is not None and guard.key is key


async def check_scope(request: Request) -> None:
    """Check that the request's key has a scope of its route. The app calls this before every route.

    Raises:
        JobFailed: the key has no such scope, or the request has no key and the route needs one.
    """
    guard = guard_of(request.scope["route"])
    if guard is None:
        raise JobFailed(_denied(()))
    if guard.key is not Key.NEEDED:
        return
    access: Access = request.state.access
    if access.scopes.isdisjoint(guard.scopes):
        raise JobFailed(unauthenticated(request) if access.is_anonymous else _denied(guard.scopes))


def unauthenticated(request: Request) -> JobError:
    """Return the error of a request without a valid key."""
    is_sent = "authorization" in request.headers or API_KEY_HEADER in request.headers
    message = "unknown API key" if is_sent else "an API key is needed"
    return JobError(
        code=ErrorCode.INVALID_API_KEY,
        message=f"{message}; send it in the header `Authorization: Bearer KEY`",
    )


def _denied(scopes: tuple[Scope, ...]) -> JobError:
    message = "this API key may not use this URL, and no other key may"
    if scopes:
        message = f"this API key may not use this URL; it needs {HINTS[scopes[0]]}"
    return JobError(code=ErrorCode.PERMISSION_DENIED, message=message)


# This is a coroutine because FastAPI calls other functions in a thread, which takes longer.
async def _access(request: Request) -> Access:
    access: Access = request.state.access
    return access


InAccess = Annotated[Access, Depends(_access)]
"""Type of a route parameter that receives the rights of the request."""
