"""Adapters in buckets of Google Cloud Storage, for which a server of this test stands."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest
from archives import Member, zip_of
from source_worker import source_reader
from threaded_server import LocalServer, QuietHandler, reply, running

from shared.errors import ErrorCode
from shared.guarded_fetch.pinned_connection import AddressCheck
from shared.store.adapters.inspections import Findings, Inspection
from worker.adapters.disk_store import AdapterStore
from worker.lora.base.modules import BaseModules

BUCKET = "models"
OBJECT = re.compile(rf"/storage/v1/b/{BUCKET}/o/(.+)")


class Storage(QuietHandler):
    """The routes that list and read objects."""

    objects: dict[str, bytes]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        path = unquote(url.path).removeprefix("/download")
        if url.path == f"/storage/v1/b/{BUCKET}/o":
            self._send(200, self._listed(query.get("prefix", [""])[0]))
        elif (found := OBJECT.fullmatch(path)) and found[1] in self.objects:
            is_media = query.get("alt") == ["media"]
            self._send_bytes(found[1]) if is_media else self._send(200, self._info(found[1]))
        else:
            self._send(404, {"error": {"code": 404, "message": "Not Found"}})

    def _listed(self, prefix: str) -> dict[str, Any]:
        below = [name for name in self.objects if name.startswith(prefix)]
        files = [name for name in below if "/" not in name.removeprefix(prefix)]
        deeper = {prefix + name.removeprefix(prefix).partition("/")[0] + "/" for name in below}
        items = [self._info(name) for name in files]
        return {"items": items, "prefixes": sorted(deeper - {f"{name}/" for name in files})}

    def _info(self, name: str) -> dict[str, Any]:
        content = self.objects[name]
        media = f"http://{self.headers['Host']}/download/storage/v1/b/{BUCKET}/o/{name}?alt=media"
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": BUCKET,
            "size": str(len(content)),
            "etag": hashlib.md5(content).hexdigest(),
            "updated": "2026-01-01T00:00:00.000Z",
            "mediaLink": media,
        }

    def _send_bytes(self, name: str) -> None:
        content = self.objects[name]
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        assert found
        part = content[int(found[1]) : int(found[2]) + 1 if found[2] else None]
        headers = {
            "Content-Range": f"bytes {found[1]}-{int(found[1]) + len(part) - 1}/{len(content)}"
        }
        reply(self, 206, part, {"Content-Type": "application/octet-stream", **headers})

    def _send(self, status: int, body: Mapping[str, Any]) -> None:
        reply(self, status, json.dumps(body).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The objects of the bucket."""
    handler = type("Handler", (Storage,), {"objects": {}})
    with running(LocalServer(handler)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        fsspec.get_filesystem_class("gs").clear_instance_cache()
        yield handler.objects
        fsspec.get_filesystem_class("gs").clear_instance_cache()


def test_folders_and_archives_are_read_and_what_is_missing_not_allowed_or_too_large_is_refused(
    base: BaseModules, store: AdapterStore, objects: dict[str, bytes], files: dict[str, bytes]
) -> None:
    reader = source_reader(base, store, [f"gs://{BUCKET}/a"], AddressCheck())

    def inspect(path: str) -> Findings:
        return reader.inspect(Inspection(name="a", source=f"gs://{BUCKET}/{path}"))

    for path in ("a/sql", "a/large", "b/sql"):
        objects |= {f"{path}/{name}": content for name, content in files.items()}
    objects |= {"a/sql/README.md": b"text", "a/sql/deep/x": b"x"}
    objects["a/sql.zip"] = zip_of(Member(*file) for file in files.items())
    objects["a/large/adapter_model.safetensors"] = bytes(25 << 20)
    folder, packed = inspect("a/sql"), inspect("a/sql.zip")
    assert folder.adapter is not None, folder.error
    assert packed.adapter is not None, packed.error
    assert folder.adapter.version == packed.adapter.version
    for path, code in (
        ("a/none", ErrorCode.SOURCE_NOT_FOUND),
        ("a/none.zip", ErrorCode.SOURCE_NOT_FOUND),
        ("b/sql", ErrorCode.SOURCE_NOT_ALLOWED),
        ("a/large", ErrorCode.ADAPTER_REJECTED),
    ):
        error = inspect(path).error
        assert error.code is code, error
