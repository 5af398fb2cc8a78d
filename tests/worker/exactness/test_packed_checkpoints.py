"""Packed bases have the weights of their publishers' code, and load in little memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import engine_of, greedy_request, outputs_of, random_prompt
from kernel_sets import linear_kernels
from packed import FORMATS, WEIGHTS, pack_experts, pack_folder, set_quantisation
from safetensors.torch import load_file, save_file
from tiny import save_adapter, save_tiny_model
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from shared.errors import ModelRejected
from worker.kernels.cpu.quantised import GROUP
from worker.model.loader import load_model
from worker.model.loading.architecture import read_config
from worker.model.loading.weights import load_weights
from worker.model.quantise import quantising_kernels
from worker.model.quantise_on_load import QuantiseOnLoad

CPU = torch.device("cpu")
SUPPORT = Path(__file__).parents[2] / "support" / "models"
LINEAR = "model.layers.1.mlp.down_proj"


def loaded_weights(folder: Path, dtype: torch.dtype, **options: Any) -> dict[str, torch.Tensor]:
    """Return the weights of the model in `folder` as they are loaded."""
    config = read_config(str(folder), folder)
    model = load_weights(str(folder), folder, config, dtype=dtype, device=CPU, **options)
    return model.state_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_weights_equal_those_of_the_publishers_formula(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    values = pack_folder(save_tiny_model(tmp_path), name)
    loaded = loaded_weights(tmp_path, dtype)
    assert loaded.keys() == values.keys()
    for weight, expected in values.items():
        assert torch.equal(loaded[weight], expected.to(dtype)), weight


def test_fp8_equals_transformers_own_code(tmp_path: Path) -> None:
    pack_folder(save_tiny_model(tmp_path), "FP8 blocks")
    stored = load_file(tmp_path / WEIGHTS)
    loaded = loaded_weights(tmp_path, torch.bfloat16)
    scales = {name: scale for name, scale in stored.items() if name.endswith("_scale_inv")}
    assert len(scales) == 14
    for name, scale in scales.items():
        weight = name.removesuffix("_scale_inv")
        expected = Fp8Dequantize(None)._dequantize_one(stored[weight], scale, torch.bfloat16)
        assert torch.equal(loaded[weight], expected), weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_mxfp4_equals_transformers_own_code(dtype: torch.dtype, tmp_path: Path) -> None:
    sizes = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}
    values = pack_experts(save_tiny_model(tmp_path, "gpt_oss", **sizes))
    stored = load_file(tmp_path / WEIGHTS)
    config = transformers_config(tmp_path)
    model = load_weights(str(tmp_path), tmp_path, config, dtype=dtype, device=CPU)
    assert len(values) == 4
    for name, expected in values.items():
        loaded = model.get_parameter(name)
        assert torch.equal(loaded, expected.to(dtype)), name
        parts = (stored[f"{name}_blocks"], stored[f"{name}_scales"])
        assert torch.equal(loaded, convert_moe_packed_tensors(*parts, dtype=dtype))


def transformers_config(folder: Path) -> Any:
    """Return a configuration that `read_config` might refuse."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def test_packed_experts_are_merged_as_transformers_does(tmp_path: Path) -> None:
    values = pack_folder(save_tiny_model(tmp_path, "mixtral"), "FP8 rows")
    loaded = loaded_weights(tmp_path, torch.bfloat16)
    for number, expert in enumerate(loaded["model.layers.1.mlp.experts.down_proj"]):
        name = f"model.layers.1.block_sparse_moe.experts.{number}.w2.weight"
        assert torch.equal(expert, values[name].bfloat16())


@pytest.mark.parametrize("name", [None, "GPTQ, ordered", "FP8 blocks", "compressed int4"])
def test_each_linear_is_quantised_when_it_is_read_with_an_error_of_half_a_step(
    name: str | None, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path)
    values = pack_folder(tmp_path, name) if name else load_file(tmp_path / WEIGHTS)
    kernels = quantising_kernels("tiny", linear_kernels(torch.float32))
    on_load = QuantiseOnLoad(kernels, torch.float32)
    loaded = loaded_weights(tmp_path, torch.float32, quantise=on_load)
    assert len(on_load.weights) == 14
    for linear, weight in on_load.weights.items():
        assert loaded[f"{linear}.weight"].is_meta
        exact = values[f"{linear}.weight"].float()
        steps = weight.scales.float().repeat_interleave(GROUP, 1)[:, : exact.shape[1]]
        # The scales are rounded up to bfloat16, and a product with 1 / scale to float32.
        assert ((weight.dequantised() - exact).abs() <= 0.5001 * steps).all(), linear
    assert not loaded["lm_head.weight"].is_meta


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("name", ["AWQ", "GPTQ, ordered", "compressed int8"])
def test_answers_are_those_of_the_dequantised_model_with_adapters(
    name: str, quantize: Any, tmp_path: Path
) -> None:
    linear_kernels(torch.float32)
    adapter = save_adapter(tmp_path / "adapter", r=8, target_modules="all-linear")
    packed, plain = (save_tiny_model(tmp_path / kind) for kind in ("packed", "plain"))
    save_file({k: v.float() for k, v in pack_folder(packed, name).items()}, plain / WEIGHTS)

    def answers(folder: Path) -> dict[str, list[int]]:
        loaded = load_model(str(folder), dtype="float32", device="cpu", quantize=quantize)
        engine, versions = engine_of(loaded, {"a": adapter})
        prompts = {f"{who}{seed}": (seed, versions.get(who)) for who in "-a" for seed in range(3)}
        requests = [
            greedy_request(key, random_prompt(seed, 20), 16, version)
            for key, (seed, version) in prompts.items()
        ]
        return {k: [o.token_id for o in out] for k, out in outputs_of(engine, requests).items()}

    assert answers(packed) == answers(plain)


LARGE = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 16}
# The check of a model keeps the inputs and outputs of its modules, much beside weights so narrow.
# A linear is computed in about 17 bytes a weight, so it must be a small part of the model.
WIDE = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 24}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("name", "quantize"),
    [
        pytest.param("FP8 blocks", None, marks=pytest.mark.slow),
        pytest.param("GPTQ, ordered", None, marks=pytest.mark.long),
        pytest.param("FP8 rows", "int8", marks=pytest.mark.long),
        pytest.param(None, "int8", marks=pytest.mark.long),
    ],
)
def test_loading_takes_at_most_a_fifth_more_memory_than_what_is_served(
    name: str | None, quantize: str | None, tmp_path: Path
) -> None:
    linear_kernels(torch.bfloat16)  # skips the test where the CPU has none
    sizes = WIDE if quantize else LARGE
    # The warm-up has the same shapes, because oneDNN keeps its code for each shape.
    one_layer = {**sizes, "num_hidden_layers": 1}
    folders = [
        save_tiny_model(tmp_path / "small", **one_layer),
        save_tiny_model(tmp_path / "large", **sizes),
    ]
    for folder in folders:
        if name:
            pack_folder(folder, name)
        else:
            halved = {k: v.bfloat16() for k, v in load_file(folder / WEIGHTS).items()}
            save_file(halved, folder / WEIGHTS)
    words = [sys.executable, str(SUPPORT / "peak_memory.py"), *map(str, folders)]
    # Without this threshold, malloc keeps some freed tensors.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    done = subprocess.run(
        [*words, *([quantize] if quantize else [])],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    served, peak = map(int, done.stdout.splitlines()[-1].split())
    assert served > 30e6
    assert 0.95 * served < peak < 1.2 * served


VLLM = "can't compute: try --engine vllm"
REFUSED = {
    "AWQ (gemv)": ({"quant_method": "awq", "bits": 4, "version": "gemv"}, VLLM),
    "GPTQ (3 bits)": ({"quant_method": "gptq", "bits": 3}, VLLM),
    "GPTQ (marlin)": ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, VLLM),
    "compressed-tensors (nvfp4-pack-quantized)": (
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        VLLM,
    ),
    "compressed-tensors (with transforms)": (
        {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"u": {}}}},
        VLLM,
    ),
    "ModelOpt": ({"quant_method": "modelopt"}, VLLM),
    "novel": ({"quant_method": "novel"}, "try --engine vllm if vLLM knows this method"),
    "SpQR": ({"quant_method": "spqr"}, "use the model that was quantised"),
}


def test_other_methods_and_layouts_are_refused_by_name_with_what_serves_them(
    tmp_path: Path,
) -> None:
    save_tiny_model(tmp_path)
    for name, (quantisation, advice) in REFUSED.items():
        set_quantisation(tmp_path, quantisation)
        with pytest.raises(ModelRejected) as error:
            load_model(str(tmp_path), dtype="float32")
        assert f"is quantised with {name}, which the native engine" in str(error.value)
        assert advice in str(error.value)


BROKEN = {
    "FP8 blocks": ("weight_scale_inv", lambda t: t[:-1], "scales for 64 values, which doesn't fit"),
    "GPTQ": ("g_idx", lambda t: t[:-1], r"g_idx has the shape \[95\], not \[96\]"),
    "GPTQ, ordered": (
        "g_idx",
        lambda t: t + 1,
        "g_idx has groups outside of 0 to ",
    ),
    "AWQ": ("qzeros", lambda t: t[:-1], "qzeros has the shape"),
    "compressed int4": ("weight_scale", lambda _: None, "weight_scale is missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_tensors_that_do_not_fit_together_are_refused(name: str, tmp_path: Path) -> None:
    end, change, message = BROKEN[name]
    pack_folder(save_tiny_model(tmp_path), name)
    stored = load_file(tmp_path / WEIGHTS)
    changed = change(stored.pop(f"{LINEAR}.{end}"))
    kept = {} if changed is None else {f"{LINEAR}.{end}": changed.clone()}
    save_file({**stored, **kept}, tmp_path / WEIGHTS)
    with pytest.raises(ModelRejected, match=message):
        load_model(str(tmp_path), dtype="float32")
