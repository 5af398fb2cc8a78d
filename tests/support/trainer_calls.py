"""The calls with which trainers publish an adapter, in the order and form of their sources.

- TRL 1.16, trl/experimental/async_grpo: `_sync_weight_lora` of async_grpo_trainer.py,
  vllm_client.py
- verl, verl/workers/rollout/sglang_rollout: `update_weights` of sglang_rollout.py,
  http_server_engine.py
- miles, which adds LoRA to slime: `update_weights` of
  miles/backends/megatron_utils/update_weight/update_weight_from_tensor.py, sglang_engine.py in
  miles/backends/sglang_utils
- AReaL: `build_disk_weight_update_requests` of areal/engine/sglang_remote.py

The sources of verl and miles serialize tensors as SGLang's pickles. Here, they use safetensors.
"""

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

KEPT = 2
"""Number of versions that TRL and AReaL keep loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """An adapter after one step of a trainer."""

    step: int
    config: dict[str, Any]
    """Contents of adapter_config.json."""
    weights: bytes
    """Bytes of adapter_model.safetensors."""
    root: Path
    """Folder that trainer and server share."""

    def saved(self, name: str) -> str:
        """Write the adapter's files, and return their folder."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(self.config))
        (folder / "adapter_model.safetensors").write_bytes(self.weights)
        return str(folder)

    @property
    def text(self) -> str:
        """The weights in base64."""
        return b64encode(self.weights).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """The calls with which one trainer publishes an adapter, and requests an answer from it."""

    name: str
    publish: Callable[[httpx.AsyncClient, Trained], Awaitable[str]]
    """Publishes an adapter, and returns the name under which the server serves it."""
    ask: Callable[[httpx.AsyncClient, str, list[int], int], Awaitable[dict[str, Any]]]
    """Requests an answer, and returns its body.

    The arguments are an HTTP client, the adapter's name, the prompt's token ids, and the maximum
    number of tokens of the answer.
    """


class Refused(Exception):
    """The server has refused a call of a trainer."""


async def _post(http: httpx.AsyncClient, path: str, body: Any = None, **query: str) -> Any:
    reply = await http.post(path, json=body, params=query)
    if reply.status_code != 200:
        raise Refused(f"POST {path}: {reply.status_code} {reply.text[:500]}")
    return reply


async def _trl(http: httpx.AsyncClient, trained: Trained) -> str:
    name = f"trl-policy-v{trained.step}"
    await _post(http, "/pause", mode="keep")
    body = {"lora_name": name, "lora_path": trained.saved(name), "load_inplace": False}
    await _post(http, "/v1/load_lora_adapter", body)
    await _post(http, "/resume")
    # As in TRL, a name that isn't loaded is no error.
    stale = {"lora_name": f"trl-policy-v{trained.step - KEPT}"}
    await http.post("/v1/unload_lora_adapter", json=stale)
    return name


async def _verl(http: httpx.AsyncClient, trained: Trained) -> str:
    name = "verl_actor_lora_name"
    models = (await http.get("/v1/models")).json()["data"]
    if any(model["id"] == name for model in models):
        await _post(http, "/unload_lora_adapter", {"lora_name": name})
    body = {"lora_name": name, "config_dict": trained.config}
    tensors = {"serialized_named_tensors": [trained.text]}
    await _post(http, "/load_lora_adapter_from_tensors", body | tensors)
    (await http.get("/flush_cache")).raise_for_status()
    return name


async def _miles(http: httpx.AsyncClient, trained: Trained) -> str:
    name = "miles_lora"
    await _post(http, "/pause_generation", {"mode": "retract"})
    (await http.get("/flush_cache")).raise_for_status()
    await http.post("/unload_lora_adapter", json={"lora_name": name})  # miles ignores errors
    body = {"lora_name": name, "config_dict": trained.config, "pinned": False}
    tensors = {"serialized_named_tensors": [trained.text]}
    await _post(http, "/load_lora_adapter_from_tensors", body | tensors)
    await _post(http, "/continue_generation", {})
    return name


async def _areal(http: httpx.AsyncClient, trained: Trained) -> str:
    name = f"lora-v{trained.step}"
    await _post(http, "/pause_generation", {})
    body = {"lora_name": name, "lora_path": trained.saved(name)}
    await _post(http, "/load_lora_adapter", body)
    stale = {"lora_name": f"lora-v{trained.step - KEPT}"}
    await http.post("/unload_lora_adapter", json=stale)  # AReaL ignores errors
    await _post(http, "/continue_generation", {})
    return name


async def _complete(
    http: httpx.AsyncClient, name: str, ids: list[int], num_tokens: int
) -> dict[str, Any]:
    body = {"model": name, "prompt": ids, "max_tokens": num_tokens, "temperature": 0.0}
    body |= {"return_token_ids": True, "logprobs": 0}
    reply = (await _post(http, "/v1/completions", body)).json()
    choice = reply["choices"][0]
    return {"output_ids": choice["token_ids"], "weight_version": reply["weight_version"]}


async def _generate(
    http: httpx.AsyncClient, name: str, ids: list[int], num_tokens: int
) -> dict[str, Any]:
    sampling = {"max_new_tokens": num_tokens, "temperature": 0.0}
    body = {"input_ids": ids, "sampling_params": sampling, "return_logprob": True}
    reply = (await _post(http, "/generate", {**body, "lora_path": name})).json()
    meta = reply["meta_info"]
    output_ids = [entry[1] for entry in meta["output_token_logprobs"]]
    return {"output_ids": output_ids, "weight_version": meta["weight_version"]}


TRAINERS = (
    Trainer(name="TRL", publish=_trl, ask=_complete),
    Trainer(name="verl", publish=_verl, ask=_generate),
    Trainer(name="miles", publish=_miles, ask=_generate),
    Trainer(name="AReaL", publish=_areal, ask=_generate),
)
