"""Compares Lorikeet's decode steps with PEFT's, for the same model shape on the same device."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from ops.lab.bench.gpu.clock import Clock
from ops.lab.bench.gpu.model import ServedModel, random_llama
from ops.lab.bench.gpu.steps import step_ms

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BesidePeft:
    """Durations of one decode step with Lorikeet and with PEFT, for the same batch.

    In PEFT, the argument `adapter_names` selects the adapter of each sequence.
    """

    batch: int
    adapters: int
    step_ms: float
    peft_step_ms: float
    times_faster: float


def beside_peft(model: ServedModel, dtype: torch.dtype, clock: Clock) -> Iterator[BesidePeft]:
    """Measure a decode step of the batch `Sizes.peft_decode` with Lorikeet and with PEFT."""
    batch, adapters = model.sizes.peft_decode
    own_ms = step_ms(model, clock, batch, adapters)
    peer = _peer(model, dtype, adapters)
    peft_ms = _peft_step_ms(peer, model, clock, batch, adapters)
    yield BesidePeft(
        batch=batch,
        adapters=adapters,
        step_ms=own_ms,
        peft_step_ms=peft_ms,
        times_faster=peft_ms / own_ms,
    )


def _peer(model: ServedModel, dtype: torch.dtype, adapters: int) -> Any:
    """Return a random model with `adapters` adapters, named 0, 1 and so on."""
    base = random_llama(model.sizes, dtype, model.device, "sdpa")
    config = LoraConfig(r=model.sizes.rank, target_modules=TARGETS)
    peer = get_peft_model(base, config, adapter_name="0", autocast_adapter_dtype=False)
    for number in range(1, adapters):
        peer.add_adapter(str(number), config, autocast_adapter_dtype=False)
    return peer.eval()


def _peft_step_ms(peer: Any, model: ServedModel, clock: Clock, batch: int, adapters: int) -> float:
    """Return the time of a decode step in ms, from the durations of a long and a short answer."""
    sizes = model.sizes
    ids = torch.randint(sizes.vocab_size, (batch, sizes.context), device=model.device)
    names = [str(number % adapters) for number in range(batch)]

    @torch.inference_mode()
    def seconds(new_tokens: int) -> float:
        start = time.perf_counter()
        peer.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            adapter_names=names,
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        clock.wait()
        return time.perf_counter() - start

    seconds(2)
    short = seconds(2)
    return 1000 * (seconds(2 + sizes.steps) - short) / sizes.steps
