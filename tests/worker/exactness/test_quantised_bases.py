"""Quantised bases answer as transformers + PEFT over the dequantised weights.

Bases that bitsandbytes quantised compute with the dequantised weights. A linear that is quantised
at load also rounds its inputs to int8. Where an input lies half way between two multiples, its last
bit decides the direction. This bit depends on the order in which a CPU sums, so two right
computations may round differently, and then choose different tokens. A reference that sums in
another order therefore can't be compared with the served answers. Two tests replace the product:

- by one that doesn't round its inputs. The answers then equal PEFT's, as precisely as float32 can.
- by one in plain torch that rounds as the native one does. The answers then keep their bits.

A third one compares predictions of a model that is trained here, whose weights were never rounded.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from engines import engine_of, greedy_request, load, outputs_of, random_prompt
from int8_product import exact_product, load_quantised, replace_product, rounded_product
from kernel_sets import NATIVE_DTYPES, every_level, linear_kernels
from kinds import kinds
from quantised import CONFIGS, WEIGHTS, quantise_folder
from reference import check_greedy_along, check_logprobs_along, logits_along, with_adapter
from safetensors.torch import load_file, save_file
from slow_cases import slow_unless
from tiny import roughen, save_adapter, save_tiny_model, tiny_model, tiny_tokenizer
from torch import Tensor, nn

from shared.errors import ModelRejected
from worker.kernels.cpu.levels import cpu_flags, usable_levels
from worker.kernels.cpu.quantised import QuantisedWeight
from worker.kernels.interface import AttentionBatch
from worker.kernels.reference import ReferenceKernels
from worker.lora.base.linear import dequantise_
from worker.lora.base.modules import base_modules
from worker.model.attention import AttentionStep, attention_step
from worker.model.kv_cache import BLOCK_SIZE, KVCache
from worker.model.loader import LoadedModel, load_model
from worker.model.loading.architecture import read_config
from worker.model.loading.weights import load_weights
from worker.model.quantise import quantise_linears_, quantising_kernels

ADAPTER = {"r": 8, "target_modules": "all-linear"}
NUM_TOKENS = 24
CPU = torch.device("cpu")
Answer = list[tuple[int, float]]
"""Tokens with their logprobs."""


def loaded_weights(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return the weights of the model in `folder` as they are loaded."""
    config = read_config(str(folder), folder)
    return load_weights(str(folder), folder, config, dtype=dtype, device=CPU).state_dict()


def reference(weights: dict[str, torch.Tensor], adapter: Path | None = None) -> Any:
    """Return the tiny model with `weights`, and with an adapter if one is given."""
    model = tiny_model()
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return with_adapter(model, adapter) if adapter else model


def greedy_answers(loaded: LoadedModel, adapters: dict[str, Path]) -> dict[int, Answer]:
    """Return what a model appends to each random prompt, by the prompt's seed."""
    engine, versions = engine_of(loaded, adapters)
    requests = [
        greedy_request(str(seed), random_prompt(seed, 20), NUM_TOKENS, versions.get("a"))
        for seed in range(6)
    ]
    for each in requests:
        each.sampling = replace(each.sampling, logprobs=0)
    outputs = outputs_of(engine, requests)
    return {
        int(name): [(o.token_id, o.logprobs.logprob) for o in each if o.logprobs]
        for name, each in outputs.items()
    }


def check_follows(loaded: LoadedModel, reference: Any, adapters: dict[str, Path]) -> None:
    """Check tokens and logprobs of answers, of the adapter if one is given."""
    for seed, answer in greedy_answers(loaded, adapters).items():
        tokens, logprobs = (list(column) for column in zip(*answer, strict=True))
        logits = logits_along(reference, random_prompt(seed, 20), tokens)
        check_greedy_along(logits, tokens)
        check_logprobs_along(logits, tokens, logprobs)


@pytest.mark.parametrize("kind", ["nf4 twice", "int8"])
def test_answers_equal_those_over_the_dequantised_weights(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "base")
    weights = quantise_folder(folder, kind)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    adapter = save_adapter(tmp_path / "adapter", **ADAPTER)
    loaded = load_model(str(folder), dtype="float32", device="cpu")
    assert loaded.eos_ids == {2, 7}
    check_follows(loaded, reference(weights), {})
    check_follows(loaded, reference(weights, adapter), {"a": adapter})


@pytest.mark.parametrize(
    ("kind", "storage"), [*((kind, "uint8") for kind in CONFIGS), ("nf4", "bfloat16")]
)
def test_weights_are_dequantised_to_the_bit(kind: str, storage: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    weights = quantise_folder(folder, kind, storage=storage)  # bfloat16 serves FSDP
    loaded = loaded_weights(folder)
    assert loaded.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(loaded[name], weight.float()), name


def test_quantised_experts_are_merged_as_transformers_does_in_the_chosen_dtype(
    tmp_path: Path,
) -> None:
    folder = save_tiny_model(tmp_path, "mixtral")
    weights = quantise_folder(folder, "nf4 twice", dtype=torch.float16)
    loaded = loaded_weights(folder, torch.bfloat16)
    assert {weight.dtype for weight in loaded.values()} == {torch.bfloat16}
    for number, expert in enumerate(loaded["model.layers.1.mlp.experts.down_proj"]):
        name = f"model.layers.1.block_sparse_moe.experts.{number}.w2.weight"
        assert torch.equal(expert, weights[name].bfloat16())


def test_sharded_files_are_read(tmp_path: Path) -> None:
    weights = quantise_folder(save_tiny_model(tmp_path), "nf4 twice")
    stored = load_file(tmp_path / WEIGHTS)
    names = sorted(stored)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: stored[name] for name in part}, tmp_path / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (tmp_path / WEIGHTS).rename(tmp_path / "unused")
    index = tmp_path / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(loaded_weights(tmp_path)[name], weights[name].float())


def test_other_kernels_are_refused(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    with pytest.raises(ModelRejected, match="--quantize int8 needs the native kernels"):
        load(tiny_model(), kernels=ReferenceKernels(), quantize="int8")
    with pytest.raises(ModelRejected, match="--dtype bfloat16 or float32"):
        load_model(str(tmp_path), dtype="float16", device="cpu", quantize="int8")


STATE = ".q_proj.weight.quant_state.bitsandbytes__nf4"
BROKEN = {
    "absmax": ("nf4", ".q_proj.weight.absmax", lambda t: t[:-1], "absmax doesn't have 64 values"),
    "packed": ("nf4", ".q_proj.weight", lambda t: t[:-1], "weight doesn't have the shape"),
    "state": ("nf4", STATE, lambda t: t[:-5], "can't be read"),
    "missing": ("nf4", ".q_proj.weight.quant_map", lambda _: None, r"quant_map is missing"),
    "old layout": ("int8", "weight_format", lambda t: t + 2, r"isn't 0; save the model again"),
}


@pytest.mark.parametrize("part", BROKEN)
def test_tensors_that_do_not_fit_together_are_refused(part: str, tmp_path: Path) -> None:
    kind, suffix, change, message = BROKEN[part]
    quantise_folder(save_tiny_model(tmp_path), kind)
    stored = load_file(tmp_path / WEIGHTS)
    name = next(name for name in stored if name.endswith(suffix))
    changed = change(stored.pop(name))
    kept = {} if changed is None else {name: changed.clone()}
    save_file({**stored, **kept}, tmp_path / WEIGHTS)
    with pytest.raises(ModelRejected, match=message):
        load_model(str(tmp_path), dtype="float32")


FUSED = ("llama", "qwen2")
"""Architectures of which one native call computes all layers."""


def reference_of(model_type: str, adapter: Path | None) -> Any:
    """Return PEFT's model with the weights that the quantised ones stand for."""
    model = roughen(tiny_model(model_type))
    chosen = quantising_kernels("tiny", linear_kernels(torch.float32))
    weights: dict[str, QuantisedWeight] = {}
    quantise_linears_("tiny", model, base_modules(model), chosen, weights)
    for name, weight in weights.items():
        dequantise_(model.get_submodule(name), weight)
    if adapter is not None:
        model = with_adapter(model, adapter)
    inside = model.base_model.model if adapter is not None else model
    for name, weight in weights.items():
        linear = inside.get_submodule(name)
        for wrapped in ("base_layer", "original_module"):  # of PEFT
            linear = getattr(linear, wrapped, linear)
        assert type(linear) is nn.Linear
        linear.weight.data = weight.dequantised()  # PEFT may have loaded the original
    return model


def saved_adapter(folder: Path, model_type: str, kind: str | None = None) -> dict[str, Path]:
    """Save an adapter of this kind, or of the first one. Return its folder by the name `a`."""
    config = kinds(model_type)[kind or next(iter(kinds(model_type)))]
    return {"a": save_adapter(folder, base=roughen(tiny_model(model_type)), **config)}


REPRESENTATIVE = {
    *(None, "DoRA, rsLoRA and patterns", "DoRA and biases", "a saved linear beside DoRA"),
    *("embedding and head", "saved embedding and head", "saved norms", "tokens of both"),
}


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        *slow_unless(
            lambda _, kind: kind in REPRESENTATIVE,
            [("llama", kind) for kind in (None, *kinds("llama"))],
        ),
        *((each, next(iter(kinds(each)))) for each in ("qwen2", "gemma2", "gpt_neox", "mixtral")),
    ],
)
def test_answers_follow_the_weights_that_were_quantised_at_load(
    model_type: str, kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = saved_adapter(tmp_path, model_type, kind) if kind else {}
    reference = reference_of(model_type, adapters.get("a"))
    replace_product(monkeypatch, exact_product)
    check_follows(load_quantised(roughen(tiny_model(model_type))), reference, adapters)


@pytest.mark.slow
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
    adapters = saved_adapter(tmp_path, model_type)

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


def test_the_digest_tells_the_quantised_base_from_the_original_and_it_takes_less_memory(
    tmp_path: Path,
) -> None:
    linear_kernels(torch.bfloat16)
    folder = str(save_tiny_model(tmp_path, hidden_size=256, intermediate_size=768))
    original, *quantised = (
        load_model(folder, dtype="bfloat16", device="cpu", quantize=kind)
        for kind in (None, "int8", "int8")
    )
    assert quantised[0].digest == quantised[1].digest != original.digest
    embedding = original.model.get_input_embeddings().weight.nbytes
    weights = quantised[0].weight_bytes - embedding
    assert weights / (original.weight_bytes - embedding) == pytest.approx(0.531, rel=0.03)


DOCS = Path(__file__).parents[3] / "ops" / "docs"
MARKUP = ("|", "#", "<", "!", "[", ">", "-", "`")
STEPS = 120
BATCH = 8
LENGTH = 64
TOKENS = 4096
WINDOW = 512
SCORED = WINDOW // 2
"""Predictions of a window that count: the last, which have the most context."""
UNTRAINED_PERPLEXITY = 262.0
"""Perplexity of a model that finds all tokens equally likely."""


@pytest.mark.slow
@pytest.mark.skipif(not usable_levels(cpu_flags()), reason="needs an x86 CPU with AVX2")
def test_int8_keeps_the_perplexity_of_a_trained_model_within_one_percent(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(prose(), return_tensors="pt", verbose=False)["input_ids"][0]
    model = tiny_model(hidden_size=128, intermediate_size=256, initializer_range=0.02)
    train_(model, ids)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    windows = ids[:TOKENS].split(WINDOW)

    def perplexity(dtype: Any, quantize: Any = None) -> float:
        loaded = load_model(str(tmp_path), dtype=dtype, device="cpu", quantize=quantize)
        losses = [loss(loaded, window) for window in windows]
        return math.exp(sum(losses) / len(losses))

    assert perplexity("float32") < UNTRAINED_PERPLEXITY / 5
    assert perplexity("bfloat16", "int8") == pytest.approx(perplexity("bfloat16"), rel=0.01)


def prose() -> str:
    """Return the lines of the documentation that are neither tables nor headings nor lists."""
    lines = [line for page in sorted(DOCS.glob("*.md")) for line in page.read_text().splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith(MARKUP))


def train_(model: torch.nn.Module, ids: Tensor) -> None:
    """Train the model on random parts of the text `ids`."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(STEPS):
        starts = torch.randint(0, len(ids) - LENGTH, (BATCH,)).tolist()
        batch = torch.stack([ids[start : start + LENGTH] for start in starts])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.eval()


@torch.inference_mode()
def loss(loaded: LoadedModel, ids: Tensor) -> float:
    """Return the mean loss of a window's last tokens, computed as the engine does."""
    positions, length = torch.arange(len(ids)), torch.tensor([len(ids)], dtype=torch.int32)
    num_blocks = -(-len(ids) // BLOCK_SIZE)
    batch = AttentionBatch(
        slots=positions,
        query_starts=F.pad(length, (1, 0)),
        context_lens=length,
        block_tables=torch.arange(num_blocks, dtype=torch.int32)[None],
    )
    cache = KVCache(loaded.cache.kv, num_blocks, dtype=loaded.dtype, device=loaded.device)
    with attention_step(AttentionStep(loaded.kernels, cache, batch)):
        logits = loaded.model(
            input_ids=ids[None],
            position_ids=positions[None],
            logits_to_keep=positions[-SCORED:],
            use_cache=False,
        ).logits[0]
    return float(F.cross_entropy(logits[:-1].float(), ids[-SCORED + 1 :]))
