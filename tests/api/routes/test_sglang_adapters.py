"""SGLang's routes that load and unload adapters, with scripted workers.

The requests are those that trainers send:
- AReaL: build_disk_weight_update_requests in areal/engine/sglang_remote.py
- verl: verl/workers/rollout/sglang_rollout/http_server_engine.py
- miles: miles/backends/sglang_utils/sglang_engine.py
"""

import pickle
from base64 import b64encode
from typing import Any

import httpx
import orjson
import pytest
from adapter_readers import Reader, adapter
from api_support import BASE, error_of
from key_support import bearer, new_key
from raw_client import with_settings
from safetensors.torch import save
from torch import ones

from api.adapters import long_strings
from shared.protocol.access.rights import Scope
from shared.protocol.adapter_files import upload_of
from shared.store.access.key_store import KeyStore
from shared.store.adapters.inspections import Findings, Inspection
from shared.store.adapters.pins import Pins
from shared.store.adapters.registry import Registry
from shared.store.adapters.uploads import Uploads
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

LOAD, UNLOAD = "/load_lora_adapter", "/unload_lora_adapter"
TENSORS = "/load_lora_adapter_from_tensors"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
SMALL = save({"a": ones(4, 8)})
LARGE = save({"a": ones(512, 1024)})
"""Weights whose base64 is longer than `MIN_CHARS`, and than a piece of an upload."""


def text_of(weights: bytes) -> str:
    return b64encode(weights).decode()


def verl_s(weights: bytes, *, copies: int = 1, **more: Any) -> dict[str, Any]:
    """Return verl's request, whose tensors were serialized by safetensors."""
    named = {"lora_name": "verl_actor_lora_name", "config_dict": CONFIG}
    return {**named, "serialized_named_tensors": [text_of(weights)] * copies, **more}


@pytest.fixture
async def stored(
    readers: Any, registry: Registry, redis: Redis, keys: Keys
) -> dict[str, tuple[bytes, bytes]]:
    """Let a worker accept every adapter. The files of those that were sent, by name."""
    found: dict[str, tuple[bytes, bytes]] = {}
    uploads = Uploads(redis, keys)
    reader: Reader = await readers(find=lambda asked: Findings(adapter=adapter(asked.name)))
    answer = reader.inspections.answer

    async def keep(inspection_id: Any, findings: Findings) -> None:
        asked: Inspection = reader.asked[-1]
        if upload := upload_of(asked.source):
            weights = b"".join([piece async for piece in uploads.pieces(upload)])
            found[asked.name] = (weights, await uploads.config(upload) or b"")
        await answer(inspection_id, findings)

    reader.inspections.answer = keep  # type: ignore[method-assign]
    return found


async def test_areal_loads_a_version_and_unloads_an_old_one(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    body = {"lora_name": "lora-v1", "lora_path": "/adapters/1"}
    reply = await http.post(LOAD, json=body)
    assert reply.json() == {
        "success": True,
        "error_message": None,
        "loaded_adapters": {"lora-v1": "/adapters/1"},
        "weight_version": "lora-v1@111111111111",
    }
    again = await http.post(LOAD, json=body)
    assert error_of(again) == (400, "adapter_exists", "lora_name")
    assert (again.json()["success"], "already been loaded" in again.json()["error_message"]) == (
        *(False, True),
    )
    assert "'upsert'" in again.json()["error_message"]
    for _ in range(2):  # a repeated call also succeeds
        gone = await http.post(UNLOAD, json={"lora_name": "lora-v1"})
        assert (gone.status_code, gone.json()["success"]) == (200, True)
    unknown = await http.post(UNLOAD, json={"lora_name": "nobody"})
    assert (unknown.status_code, unknown.json()["success"]) == (404, False)


async def test_an_unloaded_name_can_be_loaded_again(
    http: httpx.AsyncClient, reader: Reader
) -> None:
    for digit in "12":
        body = {"lora_name": "verl", "lora_path": f"/adapters/{digit}"}
        loaded = (await http.post(LOAD, json=body)).json()
        assert loaded["weight_version"] == f"verl@{digit * 12}"
        listed = (await http.get("/v1/models")).json()["data"]
        assert "verl" in [each["id"] for each in listed]
        await http.post(UNLOAD, json={"lora_name": "verl"})


@pytest.mark.parametrize("route", [LOAD, "/v1/load_lora_adapter"])
async def test_an_adapter_may_be_pinned(
    http: httpx.AsyncClient, reader: Reader, redis: Redis, keys: Keys, route: str
) -> None:
    for name, is_pinned in (("a", False), ("b", True)):
        body = {"lora_name": name, "lora_path": "/adapters/1", "pinned": is_pinned}
        assert (await http.post(route, json=body)).status_code == 200
    assert await Pins(redis, keys).all() == {"b": 1}


@pytest.mark.parametrize("weights", [SMALL, LARGE], ids=["small", "large"])
async def test_verl_s_tensors(
    http: httpx.AsyncClient, stored: dict[str, tuple[bytes, bytes]], weights: bytes
) -> None:
    reply = await http.post(TENSORS, json=verl_s(weights, copies=2))
    assert reply.status_code == 200, reply.text
    assert reply.json()["loaded_adapters"] == {"verl_actor_lora_name": "__tensor__"}
    assert reply.json()["weight_version"] == "verl_actor_lora_name@333333333333"
    found, config = stored["verl_actor_lora_name"]
    assert found == weights
    assert orjson.loads(config) == CONFIG


async def test_miles_updates_an_adapter_in_place(
    http: httpx.AsyncClient, stored: dict[str, tuple[bytes, bytes]]
) -> None:
    body = {"lora_name": "miles_lora", "config_dict": CONFIG, "pinned": False}
    body |= {"serialized_tensors": text_of(LARGE)}
    assert (await http.post(TENSORS, json=body)).status_code == 200
    again = await http.post(TENSORS, json=body)
    assert error_of(again) == (400, "adapter_exists", "lora_name")
    assert (await http.post(TENSORS, json={**body, "upsert": True})).status_code == 200


async def test_a_refused_upload_leaves_nothing_in_redis(
    http: httpx.AsyncClient, stored: Any, redis: Redis, keys: Keys
) -> None:
    wrong = LARGE[:-4] + b"zzzz"
    bodies = [
        verl_s(LARGE, lora_name=BASE.name),
        verl_s(LARGE, serialized_named_tensors=[text_of(LARGE), text_of(wrong)]),
        verl_s(LARGE, colour=1),
        verl_s(LARGE, note=text_of(LARGE)),
    ]
    for body in bodies:
        reply = await http.post(TENSORS, json=body)
        assert (reply.status_code, reply.json()["success"]) == (400, False), reply.text
    assert [key async for key in redis.scan_iter(f"{keys.prefix}upload:*")] == []


class Harmful:
    """Object whose unpickling runs code."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit(1)",)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([text_of(pickle.dumps({"a": Harmful()}))], "Python pickle"),
        ([text_of(b"\x80\x05" + b"x" * 200_000)], "Python pickle"),
        (["not base64!"], "base64"),
        (["YWJj", "YWJ"], "multiple of 4"),
        ([text_of(b"x" * 100)], "safetensors file"),
        (["x" * 100_000 + "!"], "base64"),
        ([], "1 to 64 copies"),
        (["YWJj"] * 65, "at most 64 items"),
        ([text_of(SMALL), text_of(LARGE)], "equal copies"),
        ([text_of(LARGE), text_of(SMALL)], "equal copies"),
    ],
)
async def test_only_equal_copies_of_a_safetensors_file_are_accepted(
    http: httpx.AsyncClient, stored: Any, tensors: list[str], reason: str
) -> None:
    reply = await http.post(TENSORS, json=verl_s(b"", serialized_named_tensors=tensors))
    assert error_of(reply) == (400, "invalid_value", "serialized_named_tensors"), reply.text
    assert reason in reply.json()["error_message"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"load_format": "flattened_bucket"}, "load_format"),
        ({"added_tokens_config": {"<x>": 1}}, "added_tokens_config"),
        ({"expected_checksums": {"a": "0"}}, "expected_checksums"),
        ({"lora_name": "a b"}, "lora_name"),
        ({"config_dict": "x"}, "config_dict"),
        ({"rid": "x"}, "rid"),
    ],
)
async def test_a_field_with_another_value_is_refused(
    http: httpx.AsyncClient, stored: Any, changes: Any, param: str
) -> None:
    reply = await http.post(TENSORS, json=verl_s(SMALL, **changes))
    assert error_of(reply)[::2] == (400, param)


@with_settings(max_adapter_mb=1)
async def test_the_size_of_an_adapter_is_limited(http: httpx.AsyncClient, stored: Any) -> None:
    reply = await http.post(TENSORS, json=verl_s(LARGE))
    assert error_of(reply)[:2] == (413, "request_too_large")
    assert "--max-adapter-mb" in reply.text


async def test_everything_but_the_tensors_is_limited_as_other_bodies_are(
    http: httpx.AsyncClient, stored: Any
) -> None:
    config = {**CONFIG, "notes": ["x" * (long_strings.MIN_CHARS - 1)]}
    reply = await http.post(TENSORS, json=verl_s(SMALL, config_dict=config))
    assert error_of(reply)[:2] == (413, "request_too_large")


@with_settings(require_keys=True)
async def test_a_key_may_load_only_adapters_that_it_may_use(
    http: httpx.AsyncClient, stored: Any, store: KeyStore
) -> None:
    secret, _ = await new_key(store, Scope.ADAPTERS, models=("red-*",))
    reply = await http.post(TENSORS, json=verl_s(SMALL), headers=bearer(secret))
    assert error_of(reply)[:2] == (404, "model_not_found")
    named = verl_s(SMALL, lora_name="red-1")
    assert (await http.post(TENSORS, json=named, headers=bearer(secret))).status_code == 200
