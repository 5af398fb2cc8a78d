"""A table over all routes: no route can be used without a key that has its scope."""

from collections.abc import AsyncIterator

import httpx
import pytest
from api_support import client_of, error_of
from fastapi import APIRouter, FastAPI
from key_support import bearer, new_key
from queue_support import LIMITS, make_job
from routes_support import example_path, routes

from api.app import create_app
from api.http.guards import Guards, Key, Work, guard_of, guarded
from shared.protocol.access.rights import Scope
from shared.protocol.enqueue import EnqueueOptions
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue

ENDLESS = "/v1/pool/events"
PROMPT = {"model": "extract", "max_tokens": 4}
MESSAGES = {**PROMPT, "messages": [{"role": "user", "content": "hi"}]}
ANSWERED = {
    "/v1/chat/completions": MESSAGES,
    "/v1/completions": {**PROMPT, "prompt": "hi"},
    "/v1/responses": {"model": "extract", "input": "hi"},
    "/v1/messages": MESSAGES,
    "/v1/embeddings": {"model": "extract", "input": "hi"},
}
"""A request to each route that makes jobs."""


@pytest.fixture
def app(settings: ApiSettings) -> FastAPI:
    return create_app(settings.model_copy(update={"require_keys": True}))


@pytest.fixture
async def http(app: FastAPI, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def operations(app: FastAPI) -> list[tuple[str, str, str]]:
    """Return the method, the template and an example of the path of each route that needs a key."""
    return [
        (method, route.path, example_path(route.path))
        for route in routes(app)
        for method in sorted(route.methods)
        if guard_of(route).key is Key.NEEDED
    ]


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


async def test_without_a_valid_key_every_route_answers_401(
    app: FastAPI, http: httpx.AsyncClient, store: KeyStore
) -> None:
    revoked, key_id = await new_key(store, *Scope)
    await store.revoke(key_id)
    valid, _ = await new_key(store, *Scope)
    sent = [{}, bearer(revoked), bearer(valid[:-1]), bearer(valid + "x"), bearer("sk-" + "x" * 40)]
    for method, _, path in operations(app):
        for headers in sent:
            reply = await http.request(method, path, headers=headers)
            assert (method, path, reply.status_code) == (method, path, 401)
            assert reply.headers["www-authenticate"] == "Bearer"


async def test_a_key_without_the_scope_of_a_route_gets_403_and_one_with_it_does_not(
    app: FastAPI, http: httpx.AsyncClient, store: KeyStore
) -> None:
    secrets = {scope: (await new_key(store, scope))[0] for scope in Scope}
    for method, template, path in operations(app):
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
            error = reply.json()["error"]
            assert error["type"] == "rate_limit_error"
            assert error["code"] == "rate_limit_exceeded"


async def test_a_route_without_a_guard_is_refused_to_everybody(
    app: FastAPI, http: httpx.AsyncClient, store: KeyStore
) -> None:
    @app.get("/v1/forgotten")
    async def forgotten() -> str:
        return "secret"

    secret, _ = await new_key(store, *Scope)
    reply = await http.get("/v1/forgotten", headers=bearer(secret))
    assert (reply.status_code, "secret" in reply.text) == (403, False)


async def test_open_routes_need_no_key(http: httpx.AsyncClient) -> None:
    for path in ("/", "/health", "/health/", "/version", "/docs", "/ready", "/openapi.json"):
        assert (await http.get(path)).status_code == 200, path
    assert (await http.head("/health")).status_code == 200
