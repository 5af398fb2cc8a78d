"""GET /docs/guide: the documentation as a site, if `make docs` has built it."""

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from api.http.guards import Key, Work, guarded
from api.pools.requested import InPool
from api.routes.pages.console import PAGE_HEADERS

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).parents[2] / "guide"
PAGE = "README.html"
_files = StaticFiles(directory=FOLDER, check_dir=False)


@router.head("/docs/guide")
@router.get("/docs/guide")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def first_page(request: Request, pool: InPool) -> Response:
    """Redirect to the first page. Its relative links work only below /docs/guide/."""
    await _files.get_response(PAGE, request.scope)  # a 404 if the site wasn't built
    return RedirectResponse(f"{pool.root_path}/docs/guide/{PAGE}")


@router.head("/docs/guide/{path:path}")
@router.get("/docs/guide/{path:path}")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def file(path: str, request: Request) -> Response:
    """Return a file of the site, or 304 if the browser has it."""
    response = await _files.get_response(path, request.scope)
    response.headers.update(PAGE_HEADERS)
    return response
