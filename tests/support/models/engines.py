"""Engines over tiny models, and helpers that run requests on them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from engine_requests import make_request
from tiny import tiny_tokenizer
from transformers import PreTrainedModel

from shared.protocol.ids import AdapterVersion
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.engine.request import ChoiceSampling, Request, RequestId, StepOutput
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.model.loader import LoadedModel, prepare_model

Outputs = dict[RequestId, list[StepOutput]]


def load(model: PreTrainedModel, **options: Any) -> LoadedModel:
    """Prepare `model` for serving, as the loader does. `options` are those of `prepare_model`."""
    named = {"name": "tiny", "digest": "0" * 64, "source": "tiny"}
    return prepare_model(model, tiny_tokenizer(), **named, **options)


def engine_of(
    loaded: LoadedModel,
    adapters: Mapping[str, Path] = MappingProxyType({}),
    *,
    num_blocks: int = 400,
    max_num_seqs: int = 16,
    budget: int = 512,
    caches_prefixes: bool = True,
    speculates: bool = True,
) -> tuple[NativeEngine, dict[str, AdapterVersion]]:
    """Return an engine with `adapters` resident, and the version of each adapter by name.

    `speculates` switches forced tokens and prompt lookup on.
    """
    config = EngineConfig(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
        kv_cache_bytes=_cache_bytes(loaded, num_blocks, max_num_seqs),
        adapter_bytes=64 << 20,
        caches_prefixes=caches_prefixes,
        forces_tokens=speculates,
        looks_up_tokens=speculates,
    )
    engine = NativeEngine(loaded, config)
    versions = {}
    for name, folder in adapters.items():
        adapter = read_checkpoint(name, AdapterFiles(folder), engine.base, dtype=loaded.dtype)
        engine.add_adapter(adapter)
        versions[name] = adapter.version
    return engine, versions


def _cache_bytes(loaded: LoadedModel, num_blocks: int, max_num_seqs: int) -> int:
    """Return the bytes of a cache with `num_blocks` blocks and up to `max_num_seqs` slots.

    If states are much larger than blocks, the cache has more blocks.
    """
    blocks = num_blocks * loaded.cache.bytes_per_block
    state = loaded.cache.bytes_per_state
    slots = (max_num_seqs + 1) * state
    return blocks + min(slots, max(blocks, 16 * state)) if blocks else slots


def greedy_request(
    name: str, prompt: Sequence[int], num_tokens: int, version: AdapterVersion | None = None
) -> Request:
    """Return a request for exactly `num_tokens` greedy tokens."""
    sampling = ChoiceSampling(seed=0, temperature=0.0)
    return make_request(name, prompt, version=version, sampling=sampling, max_tokens=num_tokens)


def all_outputs_of(engine: NativeEngine, requests: Iterable[Request]) -> Outputs:
    """Run `requests` to their end and return the outputs of each, errors and embeddings too."""
    outputs: Outputs = {}
    for request in requests:
        engine.add(request)
        outputs[request.id] = []
    while engine.has_work:
        for output in engine.step():
            outputs[output.request_id].append(output)
    return outputs


def outputs_of(engine: NativeEngine, requests: Iterable[Request]) -> Outputs:
    """Run `requests` to their end and return the outputs of each. An error fails the test."""
    outputs = all_outputs_of(engine, requests)
    for output in chain.from_iterable(outputs.values()):
        assert output.error is None, output.error
        assert output.token_id is not None
    return outputs


def tokens_of(outputs: Iterable[StepOutput]) -> list[int]:
    return [output.token_id for output in outputs if output.token_id is not None]


def run(engine: NativeEngine, requests: Iterable[Request]) -> dict[RequestId, list[int]]:
    """Run `requests` to their end and return the tokens of each. An error fails the test."""
    return {name: tokens_of(outputs) for name, outputs in outputs_of(engine, requests).items()}


def random_prompt(seed: int, length: int, vocab_size: int = 250) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(6, vocab_size, (length,), generator=generator).tolist()
