"""Unknown adapters that are loaded at their first request, by workers that answer as scripted."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from adapter_readers import Reader, adapter
from api_support import BASE, RunningApp, error_of, until
from key_support import bearer
from pydantic import SecretStr

from api.adapters import on_demand
from api.answers.parts import Intake
from api.http.turns.fair_slots import FairSlots
from shared.errors import ErrorCode, JobError
from shared.store.adapters.fetch_progress import Phase, Staging, StagingProgress
from shared.store.adapters.inspections import Findings, Inspection
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


@pytest.fixture
def changes() -> dict[str, Any]:
    return {"adapter_source": "s3://bucket/{name}"}


TWO_TENANTS = {
    "adapter_source": "s3://bucket/{name}",
    "api_keys": (SecretStr("red:the-api-key-of-red"), SecretStr("blue:the-api-key-of-blue")),
}


def answers(code: ErrorCode | None = None) -> Callable[[Inspection], Findings]:
    def find(asked: Inspection) -> Findings:
        if code is not None:
            return Findings(error=JobError(code=code, message="because", param="lora_path"))
        return Findings(adapter=adapter(asked.name), source=asked.source)

    return find


@pytest.fixture
async def finder(reader: Reader) -> Reader:
    reader.find = answers()
    return reader


@pytest.fixture
def go(finder: Reader) -> asyncio.Event:
    """Event until which the worker answers no inspection."""
    event, answer = asyncio.Event(), finder.answer

    async def late(inspection_id: Any) -> None:
        await event.wait()
        await answer(inspection_id)

    finder.answer = late
    return event


async def ask(http: httpx.AsyncClient, model: str) -> httpx.Response:
    """Send a request that ends when its job is in the queue."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "background": True}
    return await http.post("/v1/chat/completions", json=body)


async def test_the_first_request_registers_the_adapter(
    http: httpx.AsyncClient, finder: Reader, registry: Registry
) -> None:
    for _ in range(2):
        reply = await ask(http, "team/sql")
        assert reply.status_code in (200, 202), reply.text
    assert finder.asked == [Inspection(name="team/sql", source="s3://bucket/team/sql")]
    found = await registry.adapter("team/sql")
    assert found is not None
    assert (await ask(http, f"{BASE.name}:chat")).status_code in (200, 202)
    assert finder.asked[-1] == Inspection(name="chat", source="s3://bucket/chat")


async def test_many_requests_on_two_front_ends_look_a_name_up_once(
    http: httpx.AsyncClient, other: httpx.AsyncClient, finder: Reader
) -> None:
    replies = await asyncio.gather(*(ask(each, "sql") for each in [http, other] * 20))
    assert {reply.status_code for reply in replies} <= {200, 202}
    assert len(finder.asked) == 1


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (ErrorCode.SOURCE_NOT_FOUND, (404, "model_not_found"), "The model 'x' does not exist"),
        (ErrorCode.ADAPTER_REJECTED, (400, "adapter_rejected"), "because"),
    ],
)
async def test_an_unknown_or_refused_name_is_remembered_by_all_front_ends(
    http: httpx.AsyncClient,
    other: httpx.AsyncClient,
    finder: Reader,
    code: ErrorCode,
    error: tuple[int, str],
    words: str,
) -> None:
    finder.find = answers(code)
    for each in (http, http, other):
        reply = await ask(each, "x")
        assert error_of(reply) == (*error, "model")
        assert words in reply.json()["error"]["message"]
    assert len(finder.asked) == 1


async def test_every_api_looks_unknown_names_up(http: httpx.AsyncClient, finder: Reader) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}]}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": "x"},
        "/v1/responses": {"input": "x"},
        "/v1/messages": {**chat, "max_tokens": 1},
        "/v1/messages/count_tokens": chat,
        "/v1/responses/input_tokens": {"input": "x"},
        "/v1/embeddings": {"input": "x"},
        "/tokenize": {"prompt": "x"},
        "/api/chat": chat,
        "/api/generate": {},
        "/api/embed": {"input": "x"},
        "/api/embeddings": {"prompt": "x"},
        "/api/pull": {},
    }
    finder.find = answers(ErrorCode.SOURCE_NOT_FOUND)
    for number, (path, body) in enumerate(bodies.items()):
        reply = await http.post(path, json={"model": f"none-{number}", **body})
        assert reply.status_code == 404, reply.text
        asked = Inspection(name=f"none-{number}", source=f"s3://bucket/none-{number}")
        assert finder.asked[number:] == [asked], path


async def test_names_that_lead_elsewhere_are_404s_without_a_lookup(
    http: httpx.AsyncClient, finder: Reader
) -> None:
    for name in (
        "..",
        "../x",
        "a/../b",
        "/etc",
        "a//b",
        "%2e%2e/x",
        "a@123456789012",
        "x:y",
        "a b",
    ):
        assert error_of(await ask(http, name))[:2] == (404, "model_not_found"), name
    assert finder.asked == []


async def test_a_source_that_is_down_is_a_503_and_the_next_request_tries_again(
    http: httpx.AsyncClient, finder: Reader
) -> None:
    finder.find = answers(ErrorCode.UNAVAILABLE)
    assert error_of(await ask(http, "sql")) == (503, "service_unavailable", "model")
    finder.find = answers()
    assert (await ask(http, "sql")).status_code in (200, 202)
    assert len(finder.asked) == 2


async def test_a_front_end_that_dies_during_a_lookup_is_replaced(
    http: httpx.AsyncClient, finder: Reader, redis: Redis, keys: Keys
) -> None:
    await redis.set(keys.lookup("sql"), "looking", px=300)  # of a front end that is gone
    assert (await ask(http, "sql")).status_code in (200, 202)
    assert len(finder.asked) == 1


async def test_a_client_that_leaves_does_not_end_the_lookup_of_others(
    http: httpx.AsyncClient, go: asyncio.Event
) -> None:
    first, second = (asyncio.create_task(ask(http, "sql")) for _ in range(2))
    await asyncio.sleep(0.1)
    first.cancel()
    go.set()
    assert (await second).status_code in (200, 202)


async def test_other_requests_go_on_while_names_are_looked_up(
    http: httpx.AsyncClient, go: asyncio.Event
) -> None:
    waiting = [asyncio.create_task(ask(http, f"name-{number}")) for number in range(40)]
    await asyncio.sleep(0.2)
    assert (await ask(http, BASE.name)).status_code in (200, 202)
    assert not any(task.done() for task in waiting)
    go.set()
    assert {reply.status_code for reply in await asyncio.gather(*waiting)} <= {200, 202}


async def test_names_beyond_the_limit_are_refused(
    http: httpx.AsyncClient, go: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_demand, "MAX_NAMES", 3)
    monkeypatch.setattr(on_demand, "MAX_LOOKUPS", 1)
    waiting = [asyncio.create_task(ask(http, f"name-{number}")) for number in range(3)]
    await asyncio.sleep(0.2)
    assert error_of(await ask(http, "one-more"))[:2] == (429, "queue_full")
    go.set()
    assert {reply.status_code for reply in await asyncio.gather(*waiting)} <= {200, 202}


@pytest.mark.parametrize("changes", [TWO_TENANTS])
async def test_names_of_one_tenant_neither_displace_nor_delay_those_of_another(
    http: httpx.AsyncClient,
    server: RunningApp,
    finder: Reader,
    go: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_demand, "MAX_NAMES_PER_TENANT", 3)

    def begin(tenant: str, model: str) -> "asyncio.Task[httpx.Response]":
        body = {"model": model, "prompt": "x", "max_tokens": 1, "background": True}
        headers = bearer(f"the-api-key-of-{tenant}")
        return asyncio.create_task(http.post("/v1/completions", json=body, headers=headers))

    lookups = server.pool.part(Intake).on_demand
    lookups._slots = FairSlots(1)
    red = [begin("red", f"name-{number}") for number in range(3)]
    await until(lambda: lookups._num_running["red"] == 3)
    assert error_of(await begin("red", "one-more"))[:2] == (429, "queue_full")
    blue = []
    for number, name in enumerate(["mine", "name-2"], start=1):
        blue.append(begin("blue", name))
        await until(lambda number=number: lookups._num_running["blue"] == number)
    go.set()
    replies = await asyncio.gather(*red, *blue)
    assert {reply.status_code for reply in replies} <= {200, 202}
    assert not lookups._running
    names = [asked.name for asked in finder.asked]
    assert sorted(names) == ["mine", "name-0", "name-1", "name-2"]
    assert names.index("mine") < 3


@pytest.fixture
def progress(redis: Redis, keys: Keys) -> StagingProgress:
    return StagingProgress(redis, keys)


async def test_the_progress_of_a_new_and_of_a_known_adapter_is_shown(
    http: httpx.AsyncClient, progress: StagingProgress, reader: Reader
) -> None:
    staging = Staging(source="s3://b/new", phase=Phase.RECEIVING, num_bytes=10, total=20)
    shown = {"source": "s3://b/new", "phase": "receiving", "bytes": 10, "total_bytes": 20}
    assert (await http.get("/v1/adapters/new")).status_code == 404
    for name in ("new", "extract"):
        await progress.report(name, staging)
    new, known = [(await http.get(f"/v1/adapters/{name}")).json() for name in ("new", "extract")]
    assert new == {
        "id": "new",
        "object": "adapter",
        "parent": BASE.name,
        "state": "staging",
        "staging": shown,
    }
    assert (known["state"], known["staging"]) == ("ready", shown)
    await progress.end("extract")
    assert (await http.get("/v1/adapters/extract")).json()["staging"] is None


async def test_an_adapter_may_be_sent_as_a_source(http: httpx.AsyncClient, finder: Reader) -> None:
    query = {"name": "sql", "source": "https://h/sql.zip"}
    reply = await http.post("/v1/adapters", params=query)
    assert (reply.status_code, reply.json()["version"]) == (200, adapter("sql").version)
    assert finder.asked == [Inspection(name="sql", source="https://h/sql.zip")]
    for more in ({"content": b"weights"}, {"params": {**query, "config": "{}"}}):
        reply = await http.post("/v1/adapters", **{"params": query, **more})
        assert error_of(reply) == (400, "invalid_value", "source")
    finder.find = answers(ErrorCode.SOURCE_NOT_ALLOWED)
    assert error_of(await http.post("/v1/adapters", params=query)) == (
        403,
        "source_not_allowed",
        "source",
    )


SIGNED = "https://h/{name}.zip?signature=secret"


@pytest.mark.parametrize("changes", [{"deadline_s": 0.5, "adapter_source": SIGNED}])
async def test_a_lookup_over_the_deadline_is_a_504(
    http: httpx.AsyncClient, server: RunningApp, reader: Reader
) -> None:
    async def never(inspection_id: Any) -> None:
        assert await reader.inspections.take(inspection_id)

    reader.answer = never
    reply = await ask(http, "sql")
    assert error_of(reply)[:2] == (504, "deadline_exceeded")
    assert "secret" not in reply.text
    await until(lambda: not server.pool.part(Intake).on_demand._running)
