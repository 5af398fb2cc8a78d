"""Exact answers of models with attention sinks, with chunks, and with linears called twice a pass.

gpt_oss and granite_swa have sinks. Some layers of llama4_text attend within chunks, and others
scale queries by their positions. gemma3n_text calls its routers twice.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import Outputs, engine_of, greedy_request, load, outputs_of, random_prompt, tokens_of
from kernel_sets import NATIVE_DTYPES
from killed_worker import check_answers_over_a_kill
from reference import check_greedy_along, logits_along, with_adapter
from tiny import roughen, save_adapter, tiny_model, tiny_tokenizer
from transformers import PreTrainedModel
from worker_support import Client

from shared.errors import AdapterRejected
from worker.engine.request import Request
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
OTHERS = {
    "gpt_oss": ["o_proj"],
    "granite_swa": ["up_proj", "down_proj"],
    "llama4_text": ["gate_proj", "down_proj"],
    "gemma3n_text": ["modality_router", "per_layer_projection", "laurel.linear_left"],
}
"""Targets of the second adapter, by model type."""
NAMES = ["base", "attention", "others"]
NUM_TOKENS = 24


def base_of(model_type: str, **overrides: Any) -> PreTrainedModel:
    return roughen(tiny_model(model_type, **overrides))


def folders_of(model_type: str, root: Path, **overrides: Any) -> dict[str, Path]:
    """Save an adapter on attention and one on `OTHERS`, and return their folders."""
    targets = {"attention": ATTENTION, "others": OTHERS[model_type]}
    return {
        name: save_adapter(
            root / name,
            base=base_of(model_type, **overrides),
            seed=rank,
            r=rank,
            target_modules=modules,
        )
        for rank, (name, modules) in enumerate(targets.items(), start=8)
    }


def requests_of(versions: dict[str, Any]) -> list[Request]:
    """Return requests of the base and the adapters. Their contexts exceed windows and chunks."""
    prompts = [random_prompt(seed, 3 + 7 * seed) for seed in range(6)]
    return [
        greedy_request(str(i), prompt, NUM_TOKENS, versions.get(NAMES[i % len(NAMES)]))
        for i, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("kernels", [None, ReferenceKernels()], ids=["native", "torch"])
@pytest.mark.parametrize("model_type", OTHERS)
def test_a_mixed_batch_with_chunks_and_preemption_equals_the_reference(
    model_type: str, kernels: Kernels | None, tmp_path: Path
) -> None:
    base, folders = partial(base_of, model_type), folders_of(model_type, tmp_path)
    loaded = load(base(), kernels=kernels)
    engine, versions = engine_of(loaded, folders, num_blocks=14, budget=23)
    requests = requests_of(versions)
    outputs = outputs_of(engine, requests)
    assert engine.stats().num_preemptions > 0
    models = {"base": base()} | {n: with_adapter(base(), f) for n, f in folders.items()}
    for i, request in enumerate(requests):
        got = tokens_of(outputs[request.id])
        logits = logits_along(models[NAMES[i % len(NAMES)]], request.prompt_ids, got)
        check_greedy_along(logits, got)


@pytest.mark.timeout(240)
@pytest.mark.long
@pytest.mark.parametrize("model_type", OTHERS)
async def test_answers_go_on_after_their_worker_was_killed(
    model_type: str, client: Client, redis_url: str, pool: str, tmp_path: Path
) -> None:
    adapters = folders_of(model_type, tmp_path)
    base_of(model_type).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")

    def model_of(name: str) -> Any:
        base = base_of(model_type)
        return with_adapter(base, adapters[name]) if name in adapters else base

    await check_answers_over_a_kill(
        client, redis_url, pool, base=tmp_path / "base", adapters=adapters, model_of=model_of
    )


DENSE: dict[str, dict[str, Any]] = {
    "granite_swa": {},
    "llama4_text": {"moe_layers": []},
    "gemma3n_text": {},
}
"""Overrides that leave out experts: torch sums their products in an order that depends on rows."""


@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
@pytest.mark.parametrize(
    "model_type",
    [
        "granite_swa",
        *(pytest.param(name, marks=pytest.mark.slow) for name in DENSE if name != "granite_swa"),
    ],
)
def test_an_answer_has_the_same_bits_alone_and_in_company(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    loaded = load(base_of(model_type, **DENSE[model_type]).to(dtype))
    folders = folders_of(model_type, tmp_path, **DENSE[model_type])

    def results(outputs: Outputs) -> list[Any]:
        return [(o.token_id, o.logprobs) for each in outputs.values() for o in each]

    engine, versions = engine_of(loaded, folders)
    alone: Outputs = {}
    for request in with_logprobs(requests_of(versions)):
        alone |= outputs_of(engine, [request])
    engine, versions = engine_of(loaded, folders, num_blocks=14, budget=23)
    together = outputs_of(engine, with_logprobs(requests_of(versions)))
    assert engine.stats().num_preemptions > 0
    assert results(together) == results(alone)


def with_logprobs(requests: list[Request]) -> list[Request]:
    for request in requests:
        request.sampling = replace(request.sampling, logprobs=3)
    return requests


def test_an_adapter_on_experts_is_refused_with_the_targets_to_train_instead(tmp_path: Path) -> None:
    base = load(base_of("gpt_oss")).base
    folder = save_adapter(tmp_path, base=base_of("gpt_oss"), r=8, target_modules=ATTENTION)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"q_proj"', '"experts"'))
    message = r"layers\.0\.mlp\.experts .*train the attention modules"
    with pytest.raises(AdapterRejected, match=message):
        read_checkpoint("a", AdapterFiles(folder), base, dtype=torch.float32)
