"""Ollama's routes about models: what they list, show and pull, and what they refuse."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, BASE, ScriptedWorker, error_of
from json_lines import json_lines
from key_support import bearer, new_key
from raw_client import with_settings

from api.routes.ollama.models import API_VERSION
from shared.protocol.access.rights import Scope
from shared.protocol.ids import AdapterVersion
from shared.reasoning_form import ReasoningForm
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue

DETAILS: dict[str, Any] = {
    "parent_model": "",
    "format": "safetensors",
    "family": "lorikeet",
    "families": ["lorikeet"],
    "parameter_size": "",
    "quantization_level": "F32",
    "context_length": 1000,
    "embedding_length": 2,
}
OF_ADAPTER = {**DETAILS, "parent_model": "tiny/base:latest"}
CAPABILITIES = ["completion", "tools", "embedding"]


async def test_the_list_has_the_base_model_and_the_adapters(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    base, adapter = (await http.get("/api/tags")).json()["models"]
    assert base == {
        "name": "tiny/base:latest",
        "model": "tiny/base:latest",
        "modified_at": "1970-01-01T00:00:01Z",
        "size": 270,
        "digest": "000000000000",
        "details": DETAILS,
        "capabilities": CAPABILITIES,
    }
    assert adapter == {
        "name": "extract:latest",
        "model": "extract:latest",
        "modified_at": "1970-01-01T00:00:02Z",
        "size": 1024,
        "digest": "1" * 64,
        "details": OF_ADAPTER,
        "capabilities": CAPABILITIES,
    }
    assert (await http.head("/api/tags")).status_code == 200


async def test_the_models_that_workers_hold_are_running(
    http: httpx.AsyncClient, registry: Registry, queue: Queue
) -> None:
    assert (await http.get("/api/ps")).json() == {"models": []}
    await ScriptedWorker.start(queue, residents=())
    models = (await http.get("/api/ps")).json()["models"]
    assert [model["name"] for model in models] == ["tiny/base:latest"]
    await ScriptedWorker.start(queue)
    _, adapter = (await http.get("/api/ps")).json()["models"]
    assert adapter == {
        "name": "extract:latest",
        "model": "extract:latest",
        "size": 1024,
        "digest": "1" * 64,
        "details": OF_ADAPTER,
        "expires_at": "2200-01-01T00:00:00Z",
        "size_vram": 1024,
        "context_length": 1000,
    }


@pytest.mark.parametrize("body", [{"model": "extract:latest"}, {"name": "extract"}])
async def test_a_model_is_shown(
    http: httpx.AsyncClient, worker: ScriptedWorker, body: dict[str, str]
) -> None:
    assert (await http.post("/api/show", json=body)).json() == {
        "modelfile": "FROM tiny/base\nADAPTER extract@111111111111\n",
        "parameters": "num_ctx                        1000",
        "template": "",
        "details": OF_ADAPTER,
        "model_info": {
            "general.architecture": "lorikeet",
            "general.basename": "extract",
            "lorikeet.context_length": 1000,
            "lorikeet.embedding_length": 2,
            "adapter.type": "lora",
            "adapter.lora.rank": 8,
        },
        "capabilities": CAPABILITIES,
        "modified_at": "1970-01-01T00:00:02Z",
    }


async def test_capabilities_are_those_of_the_model(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    changed = {"takes_images": True, "embedding_size": 0, "tool_form": None}
    await registry.set_base(replace(BASE, **changed, reasoning=ReasoningForm.THINK))
    shown = (await http.post("/api/show", json={"model": BASE.name})).json()
    assert shown["capabilities"] == ["completion", "thinking", "vision"]
    assert "lorikeet.embedding_length" not in shown["model_info"]
    assert "embedding_length" not in shown["details"]
    assert shown["modelfile"] == "FROM tiny/base\n"
    of_adapter = (await http.post("/api/show", json={"model": "extract"})).json()
    assert of_adapter["capabilities"] == ["completion", "vision"]  # its own template decides


async def test_an_unknown_model_is_neither_shown_nor_pulled(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    for path in ("/api/show", "/api/pull"):
        reply = await http.post(path, json={"model": "llama3.2"})
        assert error_of(reply) == (404, "model_not_found", "model")
        assert "not found" in reply.json()["error"]
        assert error_of(await http.post(path, json={})) == (400, "invalid_value", "model")
    assert "lorikeet adapters load" in reply.json()["error"]


async def test_a_model_that_is_served_is_pulled_at_once(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    for model in ("extract", "extract:latest", "tiny/base"):
        reply = await http.post("/api/pull", json={"name": model})
        assert reply.headers["content-type"].startswith("application/x-ndjson")
        assert json_lines(reply.text) == [{"status": "success"}]
        whole = await http.post("/api/pull", json={"model": model, "stream": False})
        assert whole.json() == {"status": "success"}


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/api/push", "publish"),
        ("POST", "/api/create", "lorikeet adapters load"),
        ("POST", "/api/copy", "another name"),
        ("DELETE", "/api/delete", "lorikeet adapters unload"),
        ("POST", "/api/blobs/sha256:12", "/v1/adapters"),
    ],
)
async def test_what_only_operators_do_is_refused_and_says_how(
    http: httpx.AsyncClient, method: str, path: str, words: str
) -> None:
    reply = await http.request(method, path, json={"model": "extract"})
    assert error_of(reply) == (400, "unsupported_parameter", None)
    assert words in reply.json()["error"]
    assert (await http.head("/api/blobs/sha256:12")).status_code == 404


async def test_the_version_is_that_of_ollamas_api(http: httpx.AsyncClient) -> None:
    reply = await http.get("/api/version")
    version = (await http.get("/version")).json()["version"]
    assert reply.json() == {"version": API_VERSION, "lorikeet": version}
    assert (await http.head("/api/version")).status_code == 200


@with_settings(require_keys=True)
async def test_a_key_lists_and_finds_only_its_models(
    http: httpx.AsyncClient, registry: Registry, store: KeyStore
) -> None:
    secret, _ = await new_key(store, Scope.INFERENCE, models=("extract",))
    listed = await http.get("/api/tags", headers=bearer(secret))
    assert [model["name"] for model in listed.json()["models"]] == ["extract:latest"]
    for model, status in (("extract:latest", 200), ("tiny/base:latest", 404), (BASE.name, 404)):
        for path in ("/api/show", "/api/pull", "/api/chat", "/api/generate", "/api/embed"):
            reply = await http.post(path, json={"model": model}, headers=bearer(secret))
            assert (path, model, reply.status_code) == (path, model, status)
    assert (await http.get("/api/tags")).status_code == 401
    assert (await http.get("/api/version")).status_code == 200


async def test_a_version_of_an_adapter_is_shown(
    http: httpx.AsyncClient, registry: Registry
) -> None:
    newer = AdapterVersion("extract@222222222222")
    await registry.load_adapter(replace(ADAPTER, version=newer), replace=True)
    for named in ("extract@111111111111", "tiny/base:extract"):
        shown = (await http.post("/api/show", json={"model": named})).json()
        assert shown["model_info"]["general.basename"] == named
