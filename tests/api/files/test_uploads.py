"""Uploads of files: quotas, streaming, and forms."""

import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.access.authenticator import ANONYMOUS
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

KIB = 1 << 10
FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, Any]:
    return {
        "file_store": str(tmp_path / "store"),
        "max_file_mb": 3,
        "max_files_tenant_mb": 4,
    }


async def upload(http: httpx.AsyncClient, num_bytes: int) -> httpx.Response:
    form: dict[str, Any] = {"files": {"file": bytes(num_bytes)}, "data": {"purpose": "batch"}}
    return await http.post("/v1/files", **form, timeout=60)


def stored(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


async def test_uploads_beyond_the_quota_in_bytes_are_refused_until_files_are_deleted(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    first = await upload(http, 2500 * KIB)
    assert first.status_code == 200
    refused = await upload(http, 2500 * KIB)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "quota_exceeded")
    assert "--max-files-tenant-mb" in refused.json()["error"]["message"]
    assert [path.name for path in stored(tmp_path)] == [first.json()["id"]]
    assert (await upload(http, 1500 * KIB)).status_code == 200
    await http.delete(f"/v1/files/{first.json()['id']}")
    assert (await upload(http, 2500 * KIB)).status_code == 200


async def test_an_upload_without_a_length_is_charged_as_it_arrives(
    http: httpx.AsyncClient, tmp_path: Path, redis: Redis, keys: Keys
) -> None:
    assert (await upload(http, 2 << 20)).status_code == 200

    async def body() -> Any:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(10):
            yield bytes(256 * KIB)
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
