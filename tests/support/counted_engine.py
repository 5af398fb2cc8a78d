"""An engine on a CPU whose decode steps are counted as a GPU would run them."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from counted_operations import CountingKernels, Counts, OperationCounter
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ops.lab.bench.engine.probe import random_prompt
from ops.lab.bench.servers.random_adapters import make_adapters
from shared.protocol.ids import AdapterVersion
from worker.engine.config import EngineConfig
from worker.engine.engine import NativeEngine
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.kernels.reference import ReferenceKernels
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.model.loader import LoadedModel, prepare_model

LAYERS = 2
CONFIG = LlamaConfig(
    vocab_size=32_000,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    initializer_range=1.0,
)
"""A small model whose likeliest tokens have most of the probability, as those of trained models."""
KV_BYTES = 64 << 20
PROMPT_TOKENS = 8
DECODE_STEPS = 3
"""Number of decode steps before the counted one."""
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "top-p": {"top_p": 0.9},
    "top-p, penalties, logprobs": {
        "top_p": 0.9,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.2,
        "logprobs": 5,
    },
}
"""Sampling parameters of each case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    forward: Counts
    """Counts of the model's forward pass."""
    rest: Counts
    """Counts of everything else: the step's tensors, and sampling."""


class CountedEngine:
    """An engine over a small random model and random adapters, as a GPU would run it.

    The model isn't fused, because only native kernels of CPUs fuse it.
    """

    def __init__(self, folder: Path, *, max_num_seqs: int) -> None:
        """Make the model and its adapters in `folder`, and load them."""
        LlamaForCausalLM(CONFIG).to(torch.bfloat16).save_pretrained(folder / "base")
        self._counter = OperationCounter()
        loaded = _load(folder / "base", CountingKernels(ReferenceKernels(), self._counter))
        self._engine = NativeEngine(
            loaded,
            EngineConfig(max_num_seqs=max_num_seqs, kv_cache_bytes=KV_BYTES, looks_up_tokens=False),
        )
        self._versions = [
            self._add_adapter(name, path, loaded.dtype)
            for name, path in make_adapters(folder / "base", folder / "adapters").items()
        ]
        self._num_requests = 0
        self._in_forward = ExitStack()
        self._forward: Counts | None = None
        """Where forward passes are counted; None counts none."""
        loaded.model.register_forward_pre_hook(self._enter_forward)
        loaded.model.register_forward_hook(self._leave_forward)

    def count(self, case: str, rows: int) -> StepCounts:
        requests = [self._request(CASES[case], row) for row in range(rows)]
        for request in requests:
            self._engine.add(request)
        while not all(len(request.output_ids) >= DECODE_STEPS for request in requests):
            self._step()
        rest, forward = Counts(), Counts()
        self._forward = forward
        with self._counter, self._counter.into(rest):
            num_outputs = self._step()
        self._forward = None
        assert num_outputs == rows
        for request in requests:
            self._engine.abort(request.id)
        return StepCounts(forward=forward, rest=rest)

    def _enter_forward(self, *_: object) -> None:
        self._in_forward.enter_context(self._counter.into(self._forward))

    def _leave_forward(self, *_: object) -> None:
        self._in_forward.close()

    def _add_adapter(self, name: str, folder: Path, dtype: torch.dtype) -> AdapterVersion:
        adapter = read_checkpoint(name, AdapterFiles(folder), self._engine.base, dtype=dtype)
        self._engine.add_adapter(adapter)
        return adapter.version

    def _request(self, sampling: Mapping[str, Any], row: int) -> Request:
        self._num_requests += 1
        return Request(
            id=RequestId(f"probe-{self._num_requests}:0"),
            prompt_ids=random_prompt(row, PROMPT_TOKENS, CONFIG.vocab_size),
            version=self._versions[row % len(self._versions)],
            sampling=ChoiceSampling(seed=row, **sampling),
            max_tokens=CONFIG.max_position_embeddings,
        )

    def _step(self) -> int:
        outputs = self._engine.step()
        assert [output.error for output in outputs if output.error] == []
        return len(outputs)


def _load(folder: Path, kernels: CountingKernels) -> LoadedModel:
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="eager"
    )
    model.eval().requires_grad_(False)
    return prepare_model(
        model, None, name="probe", digest="0" * 64, source=str(folder), kernels=kernels
    )
