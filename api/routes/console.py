"""The console: its page at /, and the page's files below /static. They contain no data."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from api.context import InContext

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).parents[1] / "static"
PAGE = "index.html"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # browsers ask whether the file has changed, by its ETag
}
_files = StaticFiles(directory=FOLDER)


@router.head("/")
@router.get("/")
async def page(request: Request, context: InContext) -> Response:
    """Return the console's page. Below a root path, its URL must end with a slash.

    Otherwise, the relative URLs in the page would point outside the root path.
    """
    root = context.settings.root_path
    if root and request.scope.get("raw_path") == root.encode():
        return RedirectResponse(f"{root}/")
    return await _file(PAGE, request)


@router.head("/static/{path:path}")
@router.get("/static/{path:path}")
async def file(path: str, request: Request) -> Response:
    """Return a file of the console, or 304 if the browser has it."""
    return await _file(path, request)


async def _file(path: str, request: Request) -> Response:
    response = await _files.get_response(path, request.scope)
    response.headers.update(_HEADERS)
    return response
