"""After the warm-up, serving asks Triton for no kernel that isn't compiled yet.

No GPU is needed: Triton's keys are recorded in place of compilations for an H100.
"""

from itertools import count
from random import Random
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from engines import engine_of, greedy_request, load, random_prompt, run
from lora import random_adapter
from recorded_kernels import Compilation, RecordedKernels, recorded_compilations
from tiny import tiny_model

from shared.errors import ModelRejected
from shared.protocol.ids import AdapterVersion
from worker.engine.engine import NativeEngine
from worker.engine.request import Request
from worker.kernels.triton.lora import DECODE_TOKENS, MAX_SPLIT_TOKENS
from worker.model.loader import LoadedModel
from worker.startup.warm_up import warm_up

RANKS = (8, 16, 64, 256)
MANY = MAX_SPLIT_TOKENS // DECODE_TOKENS + 2
"""Number of adapters whose small tiles together have too many tokens for splits."""
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 1088},
    "gemma2": {"sliding_window": 40},
    "gpt_neox": {"hidden_size": 72, "num_attention_heads": 3},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 24},
    "mixtral": {},
    "qwen2": {
        "hidden_size": 1088,
        "intermediate_size": 1088,
        "num_attention_heads": 17,
        "num_key_value_heads": 1,
    },
}
"""Models with some or only wide linears, or with sizes that aren't multiples of 16."""


def loaded_model(name: str, dtype: torch.dtype) -> LoadedModel:
    overrides = {"max_position_embeddings": 2048, **MODELS[name]}
    model = tiny_model(name, **overrides).to(dtype)
    return load(model, kernels=RecordedKernels())


def add_adapters(engine: NativeEngine) -> list[AdapterVersion]:
    """Add adapters of several ranks on all linears, on some, and many small ones."""
    linears = list(engine.base.linears)
    targets = [dict.fromkeys(linears, rank) for rank in RANKS]
    targets += [dict.fromkeys(linears[::3], 24), {linears[-1]: 3}]
    targets += [dict.fromkeys(linears[:1], 8)] * (MANY - len(targets))
    versions = []
    for number, ranks in enumerate(targets):
        dtype = engine.layout.dtype
        adapter = random_adapter(engine.base, f"a{number}", ranks, seed=number, dtype=dtype)
        assert engine.add_adapter(adapter) == []
        versions.append(adapter.version)
    return versions


def mixes(versions: list[AdapterVersion]) -> list[list[Request]]:
    """Return batches of prompts with any lengths and adapters. No prompt begins like another."""
    random = Random(0)
    lengths = [
        *([1], [2], [16], [17], [300], [1100]),
        *([1, 1], [250, 3], [270, 260, 1], [5] * 20, [600, 500]),
        *([random.randint(1, 400) for _ in range(random.randint(1, 6))] for _ in range(6)),
    ]
    choices: list[AdapterVersion | None] = [*versions[:6], None]
    drawn = [[(length, random.choice(choices)) for length in batch] for batch in lengths]
    drawn += [[(1100, versions[0])], [(5, versions[0])] * 20]
    drawn += [[(DECODE_TOKENS, version) for version in versions]]
    seeds = count()
    batches = [
        [
            greedy_request(f"{(seed := next(seeds))}", random_prompt(seed, length), 3, version)
            for length, version in batch
        ]
        for batch in drawn
    ]
    for request in (request for batch in batches[-3:] for request in batch):
        request.scores_prompt = True  # the output head then computes as many rows as the linears
    return batches


def served(loaded: LoadedModel) -> set[Compilation]:
    """Return the variants that an engine asks for."""
    engine, _ = engine_of(loaded, num_blocks=500, max_num_seqs=MANY, budget=1100)
    batches = mixes(add_adapters(engine))
    with recorded_compilations() as found:
        for batch in batches:
            run(engine, batch)
    return found


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("llama", torch.bfloat16),
        *(pytest.param(name, torch.float32, marks=pytest.mark.slow) for name in MODELS),
    ],
    ids=str,
)
def test_no_kernel_is_compiled_while_requests_are_served(name: str, dtype: torch.dtype) -> None:
    with recorded_compilations():
        loaded = loaded_model(name, dtype)
    with recorded_compilations() as compiled:
        warm_up(loaded)
    found = served(loaded)
    assert {kernel for kernel, _ in found} == {
        *("store_kernel", "attention_kernel", "merge_spans_kernel"),
        *("shrink_kernel", "expand_kernel"),
    }
    assert found - compiled == set()
    assert compiled - found == set(), "every step of the warm-up is needed"


def test_a_model_whose_kernels_cannot_be_compiled_is_refused_and_other_kernels_need_no_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = RuntimeError("out of resource: shared memory\nand more lines")
    with recorded_compilations():
        loaded = loaded_model("llama", torch.float32)
        monkeypatch.setattr(RecordedKernels, "add_lora_", Mock(side_effect=failure))
        with pytest.raises(ModelRejected, match=r"its kernels fail on cpu \(out of resource: sha"):
            warm_up(loaded)
    other = load(tiny_model())
    monkeypatch.setattr(type(other.model), "forward", None)
    warm_up(other)
