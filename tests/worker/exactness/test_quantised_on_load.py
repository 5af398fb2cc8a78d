"""Bases quantised at load answer as transformers + PEFT over the dequantised weights.

A served linear also rounds its inputs to int8. Where an input lies half way between two multiples,
its last bit decides the direction. This bit depends on the order in which a CPU sums, so two right
computations may round differently, and then choose different tokens. A reference that sums in
another order therefore can't be compared with the served answers. Two tests replace the product:

- by one that doesn't round its inputs. The answers then equal PEFT's, as precisely as float32 can.
- by one in plain torch that rounds as the native one does. The answers then keep their bits.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import engine_of, outputs_of, random_prompt
from engines import greedy_request as request
from int8_product import exact_product, load_quantised, replace_product, rounded_product
from kernel_sets import NATIVE_DTYPES, every_level, linear_kernels
from kinds import kinds
from reference import check_greedy_along, check_logprobs_along, logits_along, with_adapter
from slow_cases import slow_unless
from tiny import roughen, save_adapter, save_tiny_model, tiny_model
from torch import nn

from shared.errors import ModelRejected
from worker.kernels.reference import ReferenceKernels
from worker.lora.base.modules import base_modules
from worker.model.loader import LoadedModel, load_model, prepare_model
from worker.model.quantise import quantise_linears_, quantising_kernels

MODEL_TYPES = ("llama", "qwen2", "gemma2", "gpt_neox", "mixtral")
FUSED = ("llama", "qwen2")
"""Architectures of which one native call computes all layers."""
NUM_TOKENS = 24
Answer = list[tuple[int, float]]
"""Tokens with their logprobs."""


def reference_of(model_type: str, adapter: Path | None) -> Any:
    """Return PEFT's model with the weights that the quantised ones stand for."""
    model = roughen(tiny_model(model_type))
    chosen = quantising_kernels("tiny", linear_kernels(torch.float32))
    weights = quantise_linears_("tiny", model, base_modules(model), chosen)
    if adapter is not None:
        model = with_adapter(model, adapter)
    inside = model.base_model.model if adapter is not None else model
    for name, weight in weights.items():
        linear = plain_linear(inside.get_submodule(name))
        linear.weight.data = weight.dequantised()  # PEFT may have loaded the original
    return model


def plain_linear(module: Any) -> nn.Linear:
    """Return the base's linear, which PEFT may have wrapped."""
    for wrapped in ("base_layer", "original_module"):
        module = getattr(module, wrapped, module)
    assert type(module) is nn.Linear
    return module


def saved_adapter(folder: Path, model_type: str, kind: str | None) -> dict[str, Path]:
    """Save an adapter of this kind, if one is given. Return its folder by the name `a`."""
    if kind is None:
        return {}
    config = kinds(model_type)[kind]
    return {"a": save_adapter(folder, base=roughen(tiny_model(model_type)), **config)}


def greedy_answers(loaded: LoadedModel, adapters: dict[str, Path]) -> dict[int, Answer]:
    """Return what a model appends to each random prompt, by the prompt's seed."""
    engine, versions = engine_of(loaded, adapters)
    requests = [
        request(str(seed), random_prompt(seed, 20), NUM_TOKENS, versions.get("a"))
        for seed in range(6)
    ]
    for each in requests:
        each.sampling = replace(each.sampling, logprobs=0)
    outputs = outputs_of(engine, requests)
    return {
        int(name): [(o.token_id, o.logprobs.logprob) for o in each if o.logprobs]
        for name, each in outputs.items()
    }


REPRESENTATIVE = {
    *(None, "DoRA, rsLoRA and patterns", "DoRA and biases", "a saved linear beside DoRA"),
    *("embedding and head", "saved embedding and head", "saved norms", "tokens of both"),
}


@pytest.mark.parametrize(
    "kind",
    slow_unless(lambda kind: kind in REPRESENTATIVE, [(kind,) for kind in (None, *kinds("llama"))]),
)
def test_answers_follow_the_dequantised_weights(
    kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_follows("llama", kind, tmp_path, monkeypatch)


@pytest.mark.parametrize("model_type", MODEL_TYPES[1:])
def test_answers_of_every_architecture_do(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_follows(model_type, next(iter(kinds(model_type))), tmp_path, monkeypatch)


def check_follows(
    model_type: str, kind: str | None, folder: Path, patch: pytest.MonkeyPatch
) -> None:
    adapters = saved_adapter(folder, model_type, kind)
    reference = reference_of(model_type, adapters.get("a"))
    replace_product(patch, exact_product)
    loaded = load_quantised(roughen(tiny_model(model_type)))
    for seed, answer in greedy_answers(loaded, adapters).items():
        tokens, logprobs = (list(column) for column in zip(*answer, strict=True))
        logits = logits_along(reference, random_prompt(seed, 20), tokens)
        check_greedy_along(logits, tokens)
        check_logprobs_along(logits, tokens, logprobs)


@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
@pytest.mark.parametrize("model_type", FUSED)
@every_level
def test_the_native_product_gives_the_answers_of_the_same_one_in_torch(
    level: str,
    model_type: str,
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapters = saved_adapter(tmp_path, model_type, next(iter(kinds(model_type))))

    def answers() -> dict[int, Answer]:
        kernels = linear_kernels(dtype, level)
        loaded = load_quantised(roughen(tiny_model(model_type)).to(dtype), kernels)
        return greedy_answers(loaded, adapters)

    native = answers()
    replace_product(monkeypatch, rounded_product)
    assert answers() == native
    monkeypatch.undo()
    replace_product(monkeypatch, exact_product)
    assert answers() != native, "the logprobs don't depend on the rounding of inputs"


def test_the_digest_tells_the_quantised_base_from_the_original(tmp_path: Path) -> None:
    folder = str(save_tiny_model(tmp_path))
    linear_kernels(torch.bfloat16)
    original = load_model(folder, device="cpu").digest
    quantised = [load_model(folder, device="cpu", quantize="int8").digest for _ in range(2)]
    assert quantised[0] == quantised[1] != original


def test_the_weights_take_less_memory() -> None:
    linear_kernels(torch.bfloat16)
    sizes = {"hidden_size": 256, "intermediate_size": 768}
    model = tiny_model(**sizes).to(torch.bfloat16)
    embedding = model.get_input_embeddings().weight.nbytes
    original = prepare_model(model, None, name="tiny", digest="0" * 64, source="tiny").weight_bytes
    quantised = load_quantised(tiny_model(**sizes).to(torch.bfloat16)).weight_bytes
    assert (quantised - embedding) / (original - embedding) == pytest.approx(0.531, rel=0.03)


def test_other_kernels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="--quantize int8 needs the native kernels"):
        prepare_model(
            tiny_model(),
            None,
            name="tiny",
            digest="0" * 64,
            source="tiny",
            kernels=ReferenceKernels(),
            quantize="int8",
        )
    with pytest.raises(ModelRejected, match="--dtype bfloat16 or float32"):
        load_model(str(save_tiny_model(tmp_path)), dtype="float16", device="cpu", quantize="int8")
