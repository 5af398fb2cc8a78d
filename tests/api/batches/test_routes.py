"""/v1/files and /v1/batches, through the openai client and raw requests, and who may see them."""

import itertools
import re
import tempfile
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from api_support import RunningApp, ScriptedWorker, error_of, paged
from key_support import bearer, new_key
from raw_client import with_settings
from routes_support import example_path, routes

from api.access.authenticator import ANONYMOUS
from api.schema.metadata import MAX_KEY_CHARS, MAX_KEYS, MAX_VALUE_CHARS
from shared.protocol.access.rights import ALL_MODELS, Access
from shared.protocol.ids import BatchId
from shared.store.access.key_store import KeyStore
from shared.store.batches import pages
from shared.store.batches.batches import Batches
from shared.store.batches.records import BatchStatus
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

LINE = orjson.dumps(
    {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": "extract", "prompt": "hi"},
    }
)

NUM_BATCHES = 20
MAX_RECORD_BYTES = 64 << 10
"""Memory in Redis that one batch needs at most: metadata, and the faults of its file."""
WIDE = "\U0001f99c"
"""A character that needs four bytes."""
LARGEST = {f"{i:02}" + WIDE * (MAX_KEY_CHARS - 2): WIDE * MAX_VALUE_CHARS for i in range(MAX_KEYS)}


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, Any]:
    files = {"file_store": str(tmp_path / "store"), "file_days": 7, "max_file_mb": 3}
    limits = {"max_files_tenant_mb": 4, "max_batches_tenant": NUM_BATCHES}
    return {**files, **limits, "max_body_bytes": 1_000_000}


async def uploaded(client: openai.AsyncOpenAI, content: bytes = LINE) -> str:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return file.id


async def created(client: openai.AsyncOpenAI, **changes: Any) -> Any:
    fields: dict[str, Any] = {"endpoint": "/v1/completions", "completion_window": "24h", **changes}
    if "input_file_id" not in fields:
        fields["input_file_id"] = await uploaded(client)
    return await client.batches.create(**fields)


async def test_a_file_is_stored_listed_read_and_deleted(
    client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    content = LINE * 1000
    file = await client.files.create(file=("../a/in.jsonl", content), purpose="batch")
    assert (file.filename, file.bytes, file.purpose) == ("in.jsonl", len(content), "batch")
    assert file.expires_at == file.created_at + 7 * 86_400
    assert [each.id async for each in client.files.list()] == [file.id]
    assert (await client.files.retrieve(file.id)) == file
    assert (await client.files.content(file.id)).content == content
    assert [path.name for path in (tmp_path / "store").rglob("file-*")] == [file.id]
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError, match="doesn't exist or has expired"):
        await client.files.retrieve(file.id)


async def test_lists_have_pages(client: openai.AsyncOpenAI) -> None:
    ids = [await uploaded(client) for _ in range(3)]
    assert sorted([each.id async for each in client.files.list(limit=2)]) == sorted(ids)
    page = await client.files.list(limit=2)
    assert (len(page.data), page.has_more) == (2, True)


FORM = {"content-type": "multipart/form-data; boundary=x"}


async def test_bad_uploads_are_refused(http: httpx.AsyncClient, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"json": {}}, 400, "content type"),
        ({"headers": FORM, "content": b"garbage"}, 400, "form"),
        ({"headers": {"content-type": "multipart/form-data"}, "content": b""}, 400, "form"),
        ({"files": {"file": b"x"}}, 400, "purpose"),
        ({"files": {"file": b"x"}, "data": {"purpose": "fine-tune"}}, 400, "purpose"),
        ({"files": {"other": b"x"}, "data": {"purpose": "batch"}}, 400, "file"),
        ({"files": {"file": b""}, "data": {"purpose": "batch"}}, 400, "file is empty"),
        ({"files": {"file": bytes(4 << 20)}, "data": {"purpose": "batch"}}, 413, "3 MiB"),
        ({"files": [("file", b"x"), ("file", b"y")], "data": {"purpose": "batch"}}, 400, "form"),
    ]
    for sent, status, part in cases:
        response = await http.post("/v1/files", **sent)
        assert response.status_code == status, sent
        assert part in response.json()["error"]["message"]
    assert stored(tmp_path) == []


async def test_a_large_upload_without_a_length_is_refused(http: httpx.AsyncClient) -> None:
    async def body() -> Any:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(4):
            yield bytes(1 << 20)

    response = await http.post("/v1/files", content=body(), headers=FORM)
    assert response.status_code == 413


async def upload(http: httpx.AsyncClient, num_bytes: int) -> httpx.Response:
    form: dict[str, Any] = {"files": {"file": bytes(num_bytes)}, "data": {"purpose": "batch"}}
    return await http.post("/v1/files", **form, timeout=60)


def stored(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


async def test_uploads_beyond_the_quota_in_bytes_are_refused_until_files_are_deleted(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    first = await upload(http, 2500 << 10)
    assert first.status_code == 200
    refused = await upload(http, 2500 << 10)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "quota_exceeded")
    assert "--max-files-tenant-mb" in refused.json()["error"]["message"]
    assert [path.name for path in stored(tmp_path)] == [first.json()["id"]]
    assert (await upload(http, 1500 << 10)).status_code == 200
    await http.delete(f"/v1/files/{first.json()['id']}")
    assert (await upload(http, 2500 << 10)).status_code == 200


async def test_an_upload_without_a_length_is_charged_as_it_arrives(
    http: httpx.AsyncClient, tmp_path: Path, redis: Redis, keys: Keys
) -> None:
    assert (await upload(http, 2 << 20)).status_code == 200

    async def body() -> Any:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(10):
            yield bytes(256 << 10)
        yield b'\r\n--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'

    response = await http.post("/v1/files", content=body(), headers=FORM)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "quota_exceeded")
    assert len(stored(tmp_path)) == 1
    assert await redis.hgetall(keys.stored(ANONYMOUS)) == {b"files": b"1", b"bytes": b"2097152"}  # type: ignore[misc]


async def test_a_refused_upload_is_not_charged(
    http: httpx.AsyncClient, tmp_path: Path, redis: Redis, keys: Keys
) -> None:
    response = await http.post("/v1/files", files={"file": b"x"}, data={"purpose": "fine-tune"})
    assert response.status_code == 400
    assert stored(tmp_path) == []
    assert await redis.keys(f"{keys.prefix}stored*") == []


async def test_uploads_need_no_temporary_files(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    assert (await upload(http, 3 << 20)).status_code == 200


async def test_the_file_may_come_before_its_purpose(http: httpx.AsyncClient) -> None:
    body = (
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="C:\\\\a\\\\in.jsonl"\r\n'
        b"content-type: text/plain\r\n\r\nline 1\r\nline 2\r\n\r\n"
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'
    )
    response = await http.post("/v1/files", content=body, headers=FORM)
    assert response.status_code == 200
    assert (response.json()["filename"], response.json()["bytes"]) == ("in.jsonl", 16)
    content = await http.get(f"/v1/files/{response.json()['id']}/content")
    assert content.content == b"line 1\r\nline 2\r\n"


async def test_large_fields_are_refused(http: httpx.AsyncClient) -> None:
    fields = {"purpose": "batch", "note": "x" * 70_000}
    response = await http.post("/v1/files", files={"file": b"x"}, data=fields)
    assert response.status_code == 400
    assert "64 KiB" in response.json()["error"]["message"]


async def test_a_batch_waits_for_a_control_process(client: openai.AsyncOpenAI) -> None:
    batch = await created(client, metadata={"name": "nightly"})
    assert (batch.status, batch.metadata) == ("validating", {"name": "nightly"})
    assert batch.expires_at == batch.created_at + 86_400
    assert (batch.request_counts.total, batch.output_file_id, batch.errors) == (0, None, None)
    assert await client.batches.retrieve(batch.id) == batch
    assert [each.id async for each in client.batches.list()] == [batch.id]
    cancelled = await client.batches.cancel(batch.id)
    assert cancelled.status == "cancelling"
    assert cancelled.cancelling_at is not None


async def test_bad_batches_are_refused(http: httpx.AsyncClient, client: openai.AsyncOpenAI) -> None:
    cases: list[tuple[str, Any, str]] = [
        ("input_file_id", "file-unknown", "input_file_id"),
        ("input_file_id", "", "input_file_id"),
        ("endpoint", "/v1/images", "endpoint"),
        ("completion_window", "8d", "completion_window"),
        ("completion_window", "0h", "completion_window"),
        ("completion_window", "soon", "completion_window"),
        ("metadata", {"a": 1}, "metadata.a"),
        ("metadata", {str(i): "" for i in range(17)}, "metadata"),
        ("metadata", {"k": "x" * 513}, "metadata"),
        ("metadata", {"k" * 65: "x"}, "metadata"),
        ("input_file_id", "f" * 101, "input_file_id"),
        ("unknown", 1, "unknown"),
    ]
    good = {"input_file_id": await uploaded(client), "endpoint": "/v1/completions"}
    for field, value, param in cases:
        body = {**good, "completion_window": "24h", field: value}
        response = await http.post("/v1/batches", json=body)
        assert response.status_code in (400, 404), response.text
        assert response.json()["error"]["param"] == param


async def test_an_output_file_is_no_input(
    client: openai.AsyncOpenAI, redis: Redis, keys: Keys
) -> None:
    file = await uploaded(client)
    await redis.hset(f"{keys.prefix}file:{file}", "purpose", "batch_output")  # type: ignore[misc]
    with pytest.raises(openai.BadRequestError, match="has the purpose batch_output, not batch"):
        await created(client, input_file_id=file)


async def test_bad_pages_are_refused(http: httpx.AsyncClient) -> None:
    queries = ("limit=0", "limit=101", "limit=x", "after=file-9", "order=asc")
    for path, query in itertools.product(("/v1/files", "/v1/batches"), queries):
        response = await http.get(f"{path}?{query}")
        assert response.status_code in (400, 404), (path, query)
        assert response.json()["error"]["param"] == query.partition("=")[0]


async def test_an_ended_batch_shows_when_it_ended_and_can_be_deleted(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, redis: Redis, keys: Keys
) -> None:
    batch, store = await created(client), Batches(redis, keys)
    response = await http.delete(f"/v1/batches/{batch.id}")
    assert (response.status_code, response.json()["error"]["code"]) == (409, "batch_conflict")
    assert "cancel" in response.json()["error"]["message"]
    turn = await store.take_turn()
    assert turn
    await store.end(
        BatchId(batch.id), turn.runner, BatchStatus.COMPLETED, keep_s=9, announces=False
    )
    found = await client.batches.retrieve(batch.id)
    assert (found.status, found.completed_at is not None) == ("completed", True)
    response = await http.delete(f"/v1/batches/{batch.id}")
    assert response.json() == {"id": batch.id, "object": "batch", "deleted": True}
    assert (await http.delete(f"/v1/batches/{batch.id}")).status_code == 404
    assert [each.id async for each in client.batches.list()] == []


@with_settings()
async def test_without_a_file_store_every_route_says_so(
    http: httpx.AsyncClient, server: RunningApp
) -> None:
    paths = [route for route in routes(server.app) if re.match(r"/v1/(files|batch)", route.path)]
    assert len(paths) == 10
    for route in paths:
        (method,) = route.methods
        response = await http.request(method, example_path(route.path))
        assert error_of(response)[:2] == (404, "no_file_store")
        assert "--file-store" in response.json()["error"]["message"]


PATTERNS = {
    "full": ("*",),
    "equal": ("sql-*", "extract"),
    "wide": ("tiny/*", "sql-*", "ext*"),
    "narrow": ("extract",),
    "other": ("tiny/*",),
    "blue": ("*",),
}
"""Patterns of keys, all of one tenant but the last."""
SEEN_BY = {
    "full": {"full"},
    "equal": {"full", "equal", "wide"},
    "wide": {"full", "wide"},
    "narrow": {"full", "equal", "wide", "narrow"},
    "other": {"full", "wide", "other"},
    "blue": {"blue"},
}
"""For each key, those that see its files and batches."""


@pytest.fixture
async def headers(store: KeyStore) -> dict[str, dict[str, str]]:
    found = {}
    for name, models in PATTERNS.items():
        tenant = "blue" if name == "blue" else "red"
        found[name] = bearer((await new_key(store, tenant=tenant, models=models))[0])
    return found


async def uploaded_by(http: httpx.AsyncClient, headers: dict[str, str]) -> str:
    form = {"files": {"file": ("in.jsonl", LINE)}, "data": {"purpose": "batch"}}
    reply = await http.post("/v1/files", headers=headers, **form)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


async def created_by(
    http: httpx.AsyncClient, headers: dict[str, str], file: str, **fields: Any
) -> httpx.Response:
    body = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    return await http.post("/v1/batches", headers=headers, json={**body, **fields})


@pytest.mark.parametrize("creator", PATTERNS)
async def test_only_keys_of_the_tenant_with_the_rights_of_the_creating_key_see_a_file_and_its_batch(
    http: httpx.AsyncClient, worker: ScriptedWorker, headers: Any, creator: str
) -> None:
    file = await uploaded_by(http, headers[creator])
    batch = (await created_by(http, headers[creator], file)).json()["id"]
    for name, key in headers.items():
        status = 200 if name in SEEN_BY[creator] else 404
        for path in (f"/v1/files/{file}", f"/v1/files/{file}/content", f"/v1/batches/{batch}"):
            assert (await http.get(path, headers=key)).status_code == status, (name, path)
        for path, found in (("/v1/files", file), ("/v1/batches", batch)):
            listed = [each["id"] for each in (await http.get(path, headers=key)).json()["data"]]
            assert (found in listed) == (status == 200), (name, path)
        if status == 404:
            for method, path in (
                *(("DELETE", f"/v1/files/{file}"), ("DELETE", f"/v1/batches/{batch}")),
                ("POST", f"/v1/batches/{batch}/cancel"),
            ):
                assert (await http.request(method, path, headers=key)).status_code == 404
            assert error_of(await created_by(http, key, file))[0] == 404
    assert (await http.get(f"/v1/files/{file}", headers=headers[creator])).status_code == 200


async def test_pages_of_a_key_have_all_that_it_may_see(
    http: httpx.AsyncClient, worker: ScriptedWorker, headers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "NUM_READ", 3)
    own = []
    for number in range(10):
        file = await uploaded_by(http, headers["narrow" if number % 4 == 0 else "full"])
        own += [file] if number % 4 == 0 else []
    found = await paged(http, "/v1/files", 2, headers=headers["narrow"])
    assert sorted(each["id"] for each in found) == sorted(own)


async def memory_of(redis: Redis, keys: Keys) -> int:
    found = [key async for key in redis.scan_iter(f"{keys.prefix}*batch*")]
    return sum([await redis.memory_usage(key, samples=0) or 0 for key in found])


async def test_failed_batches_with_large_metadata_fill_redis_for_nobody_else(
    http: httpx.AsyncClient, headers: Any, redis: Redis, keys: Keys
) -> None:
    red, blue = headers["full"], headers["blue"]
    store, file = Batches(redis, keys), await uploaded_by(http, red)
    for _ in range(NUM_BATCHES):
        reply = await created_by(http, red, file, metadata=LARGEST)
        assert reply.status_code == 200, reply.text
        batch = BatchId(reply.json()["id"])
        turn = await store.take_turn()
        assert turn is not None
        await store.end(batch, turn.runner, BatchStatus.FAILED, keep_s=60, announces=False)
    assert error_of(await created_by(http, red, file))[:2] == (400, "quota_exceeded")
    assert await memory_of(redis, keys) < NUM_BATCHES * MAX_RECORD_BYTES
    other = await uploaded_by(http, blue)
    assert (await created_by(http, blue, other, metadata=LARGEST)).status_code == 200
    await http.delete(f"/v1/batches/{batch}", headers=red)
    assert (await created_by(http, red, file)).status_code == 200


@pytest.mark.parametrize(
    ("rights", "models", "covers"),
    [
        ((ALL_MODELS,), ("*",), True),
        (("a*",), ("*",), False),
        (("a*",), ("abc",), True),
        (("a*",), ("abc", "b"), False),
        (("a*",), ("a*",), True),
        (("a*",), ("ab*",), False),  # equal patterns only
        (("a?",), ("a*",), False),
        (("a[*]",), ("a*",), False),
        (("a",), (), True),
    ],
)
def test_rights_cover_equal_patterns_and_names_that_they_match(
    rights: tuple[str, ...], models: tuple[str, ...], covers: bool
) -> None:
    assert Access(tenant="red", scopes=frozenset(), models=rights).covers(models) is covers
