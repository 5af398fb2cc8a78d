"""The console: its page at /, and the page's files below /static. They contain no data."""

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse

from api.http.guards import Key, Work, guarded
from api.pools.requested import InPool
from api.routes.pages.joined import digest_of, joined_script, joined_styles

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
FOREVER = "public, max-age=31536000, immutable"
FOLDER = Path(__file__).parents[2] / "static"
OLLAMA_PROBE = "Ollama is running"
"""Ollama's answer to GET /, which its clients look for."""
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_files = {
    "console.js": joined_script(FOLDER, "main.js"),
    "console.css": joined_styles(FOLDER / "css"),
    "early.js": (FOLDER / "early.js").read_bytes(),
    "logo.svg": (FOLDER / "logo.svg").read_bytes(),
}
_page = (FOLDER / "index.html").read_text(encoding="utf-8")
DIGEST = digest_of({**_files, "index.html": _page.encode()})
"""Part of the files' URLs, so that browsers may keep the files until a release changes them."""


@router.head("/")
@router.get("/")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def page(request: Request, pool: InPool) -> Response:
    """Return the console's page. Clients other than browsers get Ollama's answer.

    With a root path, the page names its files by absolute paths. Relative paths would point outside
    the root path if the page's URL doesn't end with a slash. Behind a proxy, the server can't know
    whether it does.
    """
    root = f"{pool.root_path}/" if pool.root_path else ""
    if "text/html" not in request.headers.get("accept", ""):  # browsers name it
        response: Response = PlainTextResponse(OLLAMA_PROBE, headers=PAGE_HEADERS)
    else:
        text = _page.replace('"static/', f'"{root}static/{DIGEST}/')
        response = _reply(request, text.encode(), "text/html")
    response.headers["Vary"] = "Accept"
    return response


@router.head("/static/{digest}/{name}")
@router.get("/static/{digest}/{name}")
@guarded(Work.CONSTANT, key=Key.IGNORED)
async def file(digest: str, name: str, request: Request) -> Response:
    """Return a file of the console, or 304 if the browser has it.

    While front ends of two releases serve one URL, a page of one release may ask a front end of the
    other release for its files. The page then gets that front end's files, and browsers don't keep
    them.
    """
    if name not in _files:
        raise HTTPException(404)
    response = _reply(request, _files[name], _TYPES[Path(name).suffix])
    if digest == DIGEST:
        response.headers["Cache-Control"] = FOREVER
    return response


def _reply(request: Request, content: bytes, media_type: str) -> Response:
    """Return the content, or 304 if the request's If-None-Match has its ETag."""
    etag = f'"{DIGEST}"'
    headers = {**PAGE_HEADERS, "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)
