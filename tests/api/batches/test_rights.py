"""Files and batches of keys with patterns: which other keys of the tenant may see them."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from api_support import ScriptedWorker, error_of
from key_support import bearer, new_key

from shared.protocol.access.rights import ALL_MODELS, Access
from shared.store.access.key_store import KeyStore
from shared.store.batches import pages

LINE = (
    b'{"custom_id":"1","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"x"}}'
)
KEYS = {
    "full": ("*",),
    "equal": ("sql-*", "extract"),
    "wide": ("tiny/*", "sql-*", "ext*"),
    "narrow": ("extract",),
    "other": ("tiny/*",),
}
"""Patterns of keys of one tenant."""
SEEN_BY = {
    "full": {"full"},
    "equal": {"full", "equal", "wide"},
    "wide": {"full", "wide"},
    "narrow": {"full", "equal", "wide", "narrow"},
    "other": {"full", "wide", "other"},
}
"""For each key, those that see its files and batches."""


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, Any]:
    return {"file_store": str(tmp_path / "store")}


@pytest.fixture
async def headers(store: KeyStore) -> dict[str, dict[str, str]]:
    return {name: bearer((await new_key(store, models=each))[0]) for name, each in KEYS.items()}


async def uploaded(http: httpx.AsyncClient, headers: dict[str, str]) -> str:
    form = {"files": {"file": ("in.jsonl", LINE)}, "data": {"purpose": "batch"}}
    reply = await http.post("/v1/files", headers=headers, **form)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


async def created(http: httpx.AsyncClient, headers: dict[str, str], file: str) -> httpx.Response:
    body = {
        "input_file_id": file,
        "endpoint": "/v1/completions",
        "completion_window": "24h",
    }
    return await http.post("/v1/batches", headers=headers, json=body)


async def test_only_keys_with_the_rights_of_the_creating_key_see_a_file_and_its_batch(
    http: httpx.AsyncClient, worker: ScriptedWorker, headers: Any
) -> None:
    for creator in KEYS:
        await check_who_sees_a_file_and_its_batch_of(creator, http, headers)


async def check_who_sees_a_file_and_its_batch_of(
    creator: str, http: httpx.AsyncClient, headers: Any
) -> None:
    file = await uploaded(http, headers[creator])
    batch = (await created(http, headers[creator], file)).json()["id"]
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
            assert error_of(await created(http, key, file))[0] == 404
    assert (await http.get(f"/v1/files/{file}", headers=headers[creator])).status_code == 200


async def test_pages_of_a_key_have_all_that_it_may_see(
    http: httpx.AsyncClient, worker: ScriptedWorker, headers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "NUM_READ", 3)
    own = []
    for number in range(10):
        file = await uploaded(http, headers["narrow" if number % 4 == 0 else "full"])
        own += [file] if number % 4 == 0 else []
    found: list[str] = []
    after: dict[str, str] = {}
    while True:
        url, params = "/v1/files", {"limit": "2", **after}
        page = (await http.get(url, params=params, headers=headers["narrow"])).json()
        found += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert sorted(found) == sorted(own)


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
