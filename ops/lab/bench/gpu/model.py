"""A model and adapters with random weights, made on the device within seconds."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from ops.lab.bench.gpu.decoding import Decoding, random_request
from ops.lab.bench.gpu.sizes import Sizes
from shared.protocol.ids import AdapterVersion
from worker.engine.block_manager import BlockManager
from worker.engine.model_runner import ModelRunner
from worker.engine.scheduler import Scheduler
from worker.kernels.interface import Kernels
from worker.lora.base.modules import BaseModules
from worker.lora.batch import BatchCache
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.checkpoint.low_rank import LowRank, LowRankStack
from worker.lora.layers import LoRAContext
from worker.lora.memory.layout import PoolLayout
from worker.lora.memory.pool import LoRAPool
from worker.model.kv_cache import BLOCK_SIZE, KVCache, bytes_per_block
from worker.model.loader import prepare_model

SPARE_TOKENS = 128
"""Number of tokens that each sequence may add to its context during a measurement."""
MAX_POSITIONS = 16_384
B_STD = 0.02
"""Standard deviation of the adapters' B weights."""


def llama_config(sizes: Sizes) -> Any:
    """Return the configuration of a Llama with this shape."""
    return LlamaConfig(
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.heads.num_heads,
        num_key_value_heads=sizes.heads.num_kv_heads,
        head_dim=sizes.heads.head_dim,
        vocab_size=sizes.vocab_size,
        tie_word_embeddings=sizes.ties_embeddings,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=None,
        eos_token_id=None,
    )


def random_llama(sizes: Sizes, dtype: torch.dtype, device: torch.device, attention: str) -> Any:
    """Return a model with random weights, which are sampled on the device."""
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(
            llama_config(sizes), dtype=dtype, attn_implementation=attention
        )
    return model.eval().requires_grad_(False)


class ServedModel:
    """The engine's lower layers around a random model: runner, scheduler, KV cache and adapters."""

    def __init__(
        self, sizes: Sizes, kernels: Kernels, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.device = device
        self.sizes = sizes
        model = random_llama(sizes, dtype, device, "eager")
        loaded = prepare_model(
            model,
            SimpleNamespace(eos_token_id=None),
            name=sizes.name,
            digest="0" * 64,
            source=sizes.name,
            kernels=kernels,
        )
        self.weight_bytes = _bytes_of_linears(loaded.model)
        self.kv_bytes_per_token = bytes_per_block(loaded.cache.kv, dtype) // BLOCK_SIZE
        pool, self.versions, self.adapter_bytes = _pool(loaded.base, sizes, dtype, device)
        context = LoRAContext(kernels, BatchCache(pool))
        for siblings in loaded.siblings:
            siblings.attach(pool, context, is_head=siblings.names == (loaded.base.head,))
        pool.side.attach(loaded.model, context.hook_of)
        cache = _random_cache(loaded.cache.kv, sizes, dtype, device)
        self.runner = ModelRunner(loaded, cache, context)
        self._blocks = BlockManager(cache.num_blocks, BLOCK_SIZE)

    @contextmanager
    def decoding(self, batch: int, adapters: int) -> Iterator[Decoding]:
        """Yield `batch` sequences that use `adapters` adapters; 0 selects the base model."""
        versions: Sequence[AdapterVersion | None] = self.versions[:adapters] or [None]
        scheduler = Scheduler(self._blocks, max_num_seqs=batch, max_num_batched_tokens=batch)
        decoding = Decoding(
            self.runner,
            scheduler,
            [
                random_request(
                    n, self.sizes.context, self.sizes.vocab_size, versions[n % len(versions)]
                )
                for n in range(batch)
            ],
            self.device,
        )
        try:
            yield decoding
        finally:
            decoding.end()

    @contextmanager
    def prompt(self, length: int) -> Iterator[Any]:
        """Yield a request with a prompt of `length` tokens, and with memory for the prompt."""
        prompt = random_request(0, length, self.sizes.vocab_size, None)
        self._blocks.allocate(prompt, length)
        try:
            yield prompt
        finally:
            self._blocks.free(prompt)

    def floor_ms(self, batch: int, adapters: int, bandwidth: float) -> tuple[float, float, float]:
        """Return the times in ms to read the weights, the keys and values, and the adapters once.

        A decode step of `batch` sequences that use `adapters` adapters reads each of these once.
        """
        kv = batch * self.sizes.context * self.kv_bytes_per_token
        lora = min(batch, adapters) * self.adapter_bytes
        weights, kv_ms, lora_ms = (1000 * n / bandwidth for n in (self.weight_bytes, kv, lora))
        return weights, kv_ms, lora_ms


def _pool(
    base: BaseModules, sizes: Sizes, dtype: torch.dtype, device: torch.device
) -> tuple[LoRAPool, list[AdapterVersion], int]:
    """Return a pool with resident adapters, the adapters' versions, and one adapter's bytes."""
    layout = PoolLayout(base, dtype)
    adapters = [_adapter(0, _random_weights(layout, base, sizes.rank))]
    # The weights are equal, but each adapter has its own copy on the device.
    adapters += [_adapter(n, adapters[0].modules) for n in range(1, sizes.max_adapters)]
    num_bytes = layout.image(adapters[0]).num_bytes
    pool = LoRAPool(base, max_bytes=num_bytes * len(adapters), dtype=dtype, device=device)
    for adapter in adapters:
        assert pool.add(adapter)
    return pool, [adapter.version for adapter in adapters], num_bytes


def _random_weights(layout: PoolLayout, base: BaseModules, rank: int) -> LowRank:
    """Return random matrices for all linears except the head."""
    groups = [group for group in layout.groups if base.head not in group.modules]
    stacks = [
        LowRankStack(
            modules=group.modules,
            a=torch.randn(group.num_layers, rank, group.shape.in_features).to(layout.dtype)
            / group.shape.in_features**0.5,
            b=B_STD
            * torch.randn(group.num_layers, group.shape.out_features, rank).to(layout.dtype),
            factor=1.0,
            scaling=1.0,
        )
        for group in groups
    ]
    return LowRank(stacks, [name for stack in stacks for name in stack.modules])


def _adapter(number: int, modules: LowRank) -> LoRAAdapter:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return LoRAAdapter(
        name=f"a{number}",
        version=AdapterVersion(f"a{number}@{digest[:12]}"),
        digest=digest,
        weights_digest=digest,
        source="random",
        folder=Path(),
        rank=max(stack.rank for stack in modules.stacks),
        num_bytes=modules.num_bytes,
        modules=modules,
    )


def _random_cache(shapes: Any, sizes: Sizes, dtype: torch.dtype, device: torch.device) -> KVCache:
    """Return a cache with random contents, because products of zeros need less power and time."""
    per_sequence = -(-(sizes.context + SPARE_TOKENS) // BLOCK_SIZE)
    longest = -(-max(sizes.prefills) // BLOCK_SIZE)
    num_blocks = max(sizes.max_sequences * per_sequence, longest)
    cache = KVCache(shapes, num_blocks, dtype=dtype, device=device)
    for layer in range(len(shapes)):
        for part in cache.layer(layer):
            part.normal_()
    return cache


def _bytes_of_linears(model: nn.Module) -> int:
    """Return the total size in bytes of all linears' weights. Every decode step reads them."""
    weights: list[Tensor] = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    return sum(weight.nbytes for weight in weights)
