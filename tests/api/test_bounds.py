"""A table over all routes: each declares a kind of work with bounds, and keeps them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from api_support import client_of
from fastapi import FastAPI
from fastapi.routing import APIRoute
from routes_support import example_path, routes
from starlette.types import Message

from api.app import create_app
from api.bounds import BOUNDS
from api.http.guards import Guard, Work, guard_of
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry

MAX_BODY_BYTES = 4096
JSON_BODIES = {Work.ANSWER, Work.TOKENIZATION, Work.INSPECTION, Work.CHANGE, Work.BATCH}
"""Kinds of work whose requests may have a JSON body."""
SENT_IN_PIECES = {Work.CONTENT, Work.STREAM, Work.CONSTANT}
"""Kinds of work during which Starlette waits for the client to leave, and drops what arrives."""
UPLOADS = {Work.FILE_UPLOAD, Work.ADAPTER_UPLOAD}
DEEP = b'{"x":' + b"[" * 300 + b"]" * 300 + b"}"


@pytest.fixture
def app(settings: ApiSettings, tmp_path: Path) -> FastAPI:
    changed = {"max_body_bytes": MAX_BODY_BYTES, "file_store": str(tmp_path)}
    return create_app(settings.model_copy(update=changed))


@pytest.fixture
async def http(app: FastAPI, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def operations(app: FastAPI) -> Iterator[tuple[str, str, Guard, APIRoute]]:
    """Return method, an example of the path, the guard and the route of each operation."""
    for route in routes(app):
        guard = guard_of(route)
        assert guard is not None
        for method in sorted(route.methods):
            yield method, example_path(route.path), guard, route


def takes_json(route: APIRoute) -> bool:
    """Return whether the OpenAPI document of a route names a JSON body."""
    body = (route.openapi_extra or {}).get("requestBody", {})
    return "application/json" in body.get("content", {})


def test_every_kind_of_work_has_bounds() -> None:
    assert set(BOUNDS) == set(Work)


def test_the_kind_of_work_says_whether_a_route_reads_json(app: FastAPI) -> None:
    for method, path, guard, route in operations(app):
        if takes_json(route):
            assert guard.work in JSON_BODIES, (method, path)


async def test_no_json_body_is_larger_than_its_limit(app: FastAPI, http: httpx.AsyncClient) -> None:
    large = b'{"x":"' + b"x" * MAX_BODY_BYTES + b'"}'
    for method, path, _, route in operations(app):
        if takes_json(route):
            reply = await http.request(method, path, content=large)
            assert (method, path, reply.status_code) == (method, path, 413)


async def test_no_json_body_is_nested_deeper_than_its_limit(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    for method, path, _, route in operations(app):
        if takes_json(route):
            reply = await http.request(method, path, content=DEEP)
            assert (method, path, reply.status_code) == (method, path, 400)
            assert "nest" in reply.text, (method, path)


async def test_routes_without_a_body_answer_before_they_read_any(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    for method, path, guard, _ in operations(app):
        if guard.work in JSON_BODIES | UPLOADS | SENT_IN_PIECES:
            continue
        assert await num_pieces_read(app, method, path) == 0, (method, path)


async def num_pieces_read(app: FastAPI, method: str, path: str) -> int:
    """Send a request with an endless body, and return how many pieces the answer waits for."""
    num_read, num_before_answer = 0, list[int]()

    async def receive() -> Message:
        nonlocal num_read
        num_read += 1
        if num_read > 10:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"x" * 1024, "more_body": True}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            num_before_answer.append(num_read)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "scheme": "http",
        "http_version": "1.1",
        "app": app,
    }
    await app(scope, receive, send)
    return num_before_answer[0]


async def test_no_list_is_longer_than_its_limit(app: FastAPI, http: httpx.AsyncClient) -> None:
    for method, path, guard, _ in operations(app):
        if guard.work is Work.LIST:
            reply = await http.request(method, path, params={"limit": "1000000"})
            assert (method, path, reply.status_code) == (method, path, 400)
            assert "limit" in reply.text
