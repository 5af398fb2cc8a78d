"""The console: its page at /, and the page's files below /static. They contain no data."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from api.http.guards import Key, Work, guarded
from api.pools.requested import InPool

router = APIRouter(include_in_schema=False)
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # browsers send the ETag to ask whether the file has changed
}
"""With these headers, browsers load nothing from other hosts, and run no inline code."""
FOLDER = Path(__file__).parents[2] / "static"
PAGE = "index.html"
_files = StaticFiles(directory=FOLDER)
_page = (FOLDER / PAGE).read_text(encoding="utf-8")


@router.head("/")
@router.get("/")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def page(request: Request, pool: InPool) -> Response:
    """Return the console's page.

    With a root path, the page names its files by absolute paths. Relative paths would point outside
    the root path if the page's URL doesn't end with a slash. Behind a proxy, the server can't know
    whether it does.
    """
    root = pool.root_path
    if not root:
        return await _file(PAGE, request)
    return HTMLResponse(_page.replace('"static/', f'"{root}/static/'), headers=PAGE_HEADERS)


@router.head("/static/{path:path}")
@router.get("/static/{path:path}")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def file(path: str, request: Request) -> Response:
    """Return a file of the console, or 304 if the browser has it."""
    return await _file(path, request)


async def _file(path: str, request: Request) -> Response:
    response = await _files.get_response(path, request.scope)
    response.headers.update(PAGE_HEADERS)
    return response
