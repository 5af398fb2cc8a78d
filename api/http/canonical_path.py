"""Middleware that normalises paths before keys are checked and routes are matched."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

POOLS_PATH = "/pools/"
"""Prefix of the paths below which each pool has all routes: `/pools/NAME/v1/...`."""
WITHOUT_VERSION = (
    *("/chat/completions", "/completions", "/embeddings"),
    *("/messages", "/models", "/responses"),
)
"""Paths that clients request if their base URL lacks `/v1`. `/v1` is added to these paths, and to
all paths below them."""
POOL = "pool"
"""Key of the pool's name in the `state` of a request's scope."""


class CanonicalPath:
    """ASGI middleware that removes root path, pool and trailing slashes from a request's path.

    Proxies may send the path with or without the root path, and clients may leave out `/v1` in
    their base URL, or have it twice. Routes, guards and metrics see the same path in all cases. The
    client isn't redirected, because many clients lose the body of a request that is redirected. The
    pool is put into the state of the scope.
    """

    def __init__(self, app: ASGIApp, root_path: str, pools: Collection[str]) -> None:
        self._app = app
        self._root_path = root_path
        self._pools = pools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Normalise the path of a request, and pass the request to the app."""
        if scope["type"] == "http":
            path = canonical_path(scope["path"], self._root_path)
            pool = path.removeprefix(POOLS_PATH).partition("/")[0]
            if path.startswith(POOLS_PATH) and pool in self._pools:
                scope.setdefault("state", {})[POOL] = pool
                path = canonical_path(path, f"{POOLS_PATH}{pool}")
            scope["path"] = versioned_path(path)
        await self._app(scope, receive, send)


def canonical_path(path: str, root_path: str) -> str:
    """Return `path` without `root_path` and without trailing slashes; `/` for an empty path."""
    if root_path and (path == root_path or path.startswith(f"{root_path}/")):
        path = path.removeprefix(root_path)
    return path.rstrip("/") or "/"


def versioned_path(path: str) -> str:
    """Return `path` with one `/v1` at its start, if it is the path of an inference API."""
    if path.startswith("/v1/v1/"):
        return path.removeprefix("/v1")
    is_without = any(path == each or path.startswith(f"{each}/") for each in WITHOUT_VERSION)
    return f"/v1{path}" if is_without else path
