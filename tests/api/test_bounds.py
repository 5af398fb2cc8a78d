"""Tables over all routes: each declares a scope and a kind of work with bounds, and keeps them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from api_support import client_of, error_of
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from key_support import bearer, new_key
from queue_support import LIMITS, make_job
from raw_client import with_settings
from routes_support import example_path, routes
from starlette.types import Message

from api.app import create_app
from api.http.guards import Guard, Guards, Key, Work, guard_of, guarded
from ops.lab.generate.bounds import BOUNDS
from shared.protocol.access.rights import Scope
from shared.protocol.enqueue import EnqueueOptions
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue

MAX_BODY_BYTES = 4096
JSON_BODIES = {
    *(Work.ANSWER, Work.TOKENIZATION, Work.INSPECTION),
    *(Work.CHANGE, Work.KEY, Work.CONTROL, Work.JOBS, Work.BATCH, Work.LOOKUP),
}
"""Kinds of work whose requests may have a JSON body."""
SENT_IN_PIECES = {Work.CONTENT, Work.STREAM, Work.CONSTANT}
"""Kinds of work during which Starlette waits for the client to leave, and drops what arrives."""
UPLOADS = {Work.FILE_UPLOAD, Work.ADAPTER_UPLOAD}
LARGE = b'{"x":"' + b"x" * MAX_BODY_BYTES + b'"}'
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


async def test_no_json_body_is_larger_or_nested_deeper_than_its_limit(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    for method, path, _, route in operations(app):
        if takes_json(route):
            large = await http.request(method, path, content=LARGE)
            assert (method, path, large.status_code) == (method, path, 413)
            deep = await http.request(method, path, content=DEEP)
            assert (method, path, deep.status_code) == (method, path, 400)
            assert "nest" in deep.text, (method, path)


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


ENDLESS = "/v1/pool/events"
PROMPT = {"model": "extract", "max_tokens": 4}
MESSAGES = {**PROMPT, "messages": [{"role": "user", "content": "hi"}]}
ANSWERED = {
    "/v1/chat/completions": MESSAGES,
    "/v1/completions": {**PROMPT, "prompt": "hi"},
    "/v1/responses": {"model": "extract", "input": "hi"},
    "/v1/messages": MESSAGES,
    "/generate": {"text": "hi", "lora_path": "extract"},
    "/v1/embeddings": {"model": "extract", "input": "hi"},
    "/api/chat": {"model": "extract", "messages": MESSAGES["messages"]},
    "/api/generate": {"model": "extract", "prompt": "hi"},
    "/api/embed": {"model": "extract", "input": "hi"},
    "/api/embeddings": {"model": "extract", "prompt": "hi"},
}
"""A request to each route that makes jobs."""


KEYS_NEEDED = with_settings(require_keys=True)


def guarded_operations(app: FastAPI) -> Iterator[tuple[str, str, str]]:
    """Return the method, the template and an example of the path of each route that needs a key."""
    for method, path, guard, route in operations(app):
        if guard.key is Key.NEEDED:
            yield method, route.path, path


def test_every_route_declares_its_guard(app: FastAPI) -> None:
    declared = {(method, route.path) for route in routes(app) for method in route.methods}
    assert declared == set(app.state.guards.operations)
    for guard in app.state.guards.operations.values():
        assert bool(guard.scopes) is (guard.key is Key.NEEDED)


def test_an_app_with_an_unguarded_route_does_not_start() -> None:
    router = APIRouter()

    @router.get("/v1/forgotten")
    async def forgotten() -> str:
        return "secret"

    with pytest.raises(ValueError, match="/v1/forgotten: the route declares no guard"):
        Guards([router])


def test_the_methods_of_a_path_need_the_same_key() -> None:
    router = APIRouter()

    @router.get("/v1/thing")
    @guarded(Work.READ, Scope.INFERENCE)
    async def read() -> str:
        return ""

    @router.delete("/v1/thing")
    @guarded(Work.RECORD, Scope.ADMIN)
    async def delete() -> str:
        return ""

    with pytest.raises(ValueError, match="/v1/thing: its methods need different keys"):
        Guards([router])


@KEYS_NEEDED
async def test_without_a_valid_key_every_route_answers_401(
    app: FastAPI, http: httpx.AsyncClient, store: KeyStore
) -> None:
    revoked, key_id = await new_key(store, *Scope)
    await store.revoke(key_id)
    valid, _ = await new_key(store, *Scope)
    sent = [{}, bearer(revoked), bearer(valid[:-1]), bearer(valid + "x"), bearer("sk-" + "x" * 40)]
    for method, _, path in guarded_operations(app):
        for headers in sent:
            reply = await http.request(method, path, headers=headers)
            assert (method, path, reply.status_code) == (method, path, 401)
            assert reply.headers["www-authenticate"] == "Bearer"


@with_settings(require_keys=True, deadline_s=0.5)  # no worker reads adapters or tokenizes
async def test_a_key_without_the_scope_of_a_route_gets_403_and_one_with_it_does_not(
    app: FastAPI, http: httpx.AsyncClient, store: KeyStore
) -> None:
    secrets = {scope: (await new_key(store, scope))[0] for scope in Scope}
    for method, template, path in guarded_operations(app):
        for scope, secret in secrets.items():
            has_scope = scope in app.state.guards.scopes(template)
            if template == ENDLESS and has_scope:
                continue
            reply = await http.request(method, path, headers=bearer(secret))
            case = (method, path, scope)
            assert reply.status_code != 401, case
            assert (reply.status_code == 403) is not has_scope, case
            if not has_scope and method != "HEAD":
                assert error_of(reply)[1] == "permission_denied" or "error" in reply.json()


@KEYS_NEEDED
async def test_a_key_whose_limit_is_reached_gets_429_on_every_route_that_makes_jobs(
    http: httpx.AsyncClient, store: KeyStore, queue: Queue
) -> None:
    secret, key_id = await new_key(store, requests_per_day=1)
    await queue.enqueue(make_job(tenant="red"), LIMITS, options=EnqueueOptions(key_id=key_id))
    for path, body in ANSWERED.items():
        for form in ({}, {"stream": True}):
            reply = await http.post(path, json={**body, **form}, headers=bearer(secret))
            if reply.status_code == 400:  # embeddings aren't streamed
                continue
            assert (path, reply.status_code) == (path, 429)
            assert 0 < int(reply.headers["retry-after"]) <= 86_400
            assert error_of(reply)[1] == "rate_limit_exceeded"
            if not path.startswith("/api/"):
                assert reply.json()["error"]["type"] == "rate_limit_error"


@KEYS_NEEDED
async def test_a_route_without_a_guard_is_refused_to_everybody(
    app: FastAPI, http: httpx.AsyncClient, store: KeyStore
) -> None:
    @app.get("/v1/forgotten")
    async def forgotten() -> str:
        return "secret"

    secret, _ = await new_key(store, *Scope)
    reply = await http.get("/v1/forgotten", headers=bearer(secret))
    assert (reply.status_code, "secret" in reply.text) == (403, False)


@KEYS_NEEDED
async def test_open_routes_need_no_key(http: httpx.AsyncClient) -> None:
    for path in ("/", "/health", "/health/", "/version", "/docs", "/ready", "/openapi.json"):
        assert (await http.get(path)).status_code == 200, path
    assert (await http.head("/health")).status_code == 200
