"""Middleware that gives every path one form, before keys are checked and routes are matched."""

from starlette.types import ASGIApp, Receive, Scope, Send


class CanonicalPath:
    """ASGI middleware that removes the root path and trailing slashes from a request's path.

    Proxies may send the path with or without the root path. Routes, the list of open paths and the
    metrics see the same path in all cases. The client isn't redirected, because many clients lose
    the body of a request that is redirected.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            scope["path"] = canonical_path(scope["path"], self._root_path)
        await self._app(scope, receive, send)


def canonical_path(path: str, root_path: str) -> str:
    """Return `path` without `root_path` and without trailing slashes; `/` for an empty path."""
    if root_path and (path == root_path or path.startswith(f"{root_path}/")):
        path = path.removeprefix(root_path)
    return path.rstrip("/") or "/"
