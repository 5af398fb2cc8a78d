"""The page of model types, and the computed sizes in ops/docs/gpu.md."""

import asyncio
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers

from ops.lab.generate.gpu_sizes import CARDS_GIB, MODELS, PAGE, Shape, cards_needed, sizes
from ops.lab.generate.models import run
from ops.lab.generate.models.attempt import ARCHITECTURES, attempt
from ops.lab.generate.models.outcome import (
    VLLM_FILE,
    Outcome,
    Outcomes,
    Status,
    read_outcomes,
    write_outcomes,
)
from ops.lab.generate.models.page import WELL_KNOWN, row
from ops.lab.generate.models.run import try_all
from ops.lab.generate.models.tiny_config import tiny_config
from ops.lab.generate.models.vllm_trials import _cause
from worker.lora.base.modules import BaseModules, ModuleShape
from worker.lora.memory.layout import GroupPages, PoolLayout
from worker.lora.memory.pages import UNIT_BYTES, pages_of_rank
from worker.model.kv_cache import KVShape
from worker.model.memory_policy import GIB

STORED = read_outcomes()
BY_TYPE = {outcome.model_type: outcome for outcome in STORED.outcomes}
FEW = ("llama", "falcon")
MANY = (
    *("gpt2", "qwen2", "qwen3", "qwen3_moe", "mistral", "mixtral", "gemma2", "gemma3_text"),
    *("gemma3", "phi3", "phimoe", "llama4_text", "deepseek_v3", "gpt_oss", "modernbert-decoder"),
    *("bert", "musicgen", "gemma3n_text"),
)
REGENERATE = "run: python -m ops.lab.generate.models.run"
same_transformers = pytest.mark.skipif(
    transformers.__version__ != STORED.version,
    reason="the page shows another version of transformers",
)


def outcome(status: Status = Status.SERVED, reason: str = "", **fields: str) -> Outcome:
    return Outcome(
        model_type="llama", architecture="LlamaForCausalLM", status=status, reason=reason, **fields
    )


@same_transformers
def test_the_page_has_every_type_of_transformers_with_its_class() -> None:
    found = {outcome.model_type: outcome.architecture for outcome in STORED.outcomes}
    assert found == ARCHITECTURES, REGENERATE


def test_well_known_types_exist_and_no_reason_is_a_traceback_or_long() -> None:
    assert len(WELL_KNOWN) == len(set(WELL_KNOWN))
    assert set(WELL_KNOWN) <= BY_TYPE.keys()
    for found in STORED.outcomes:
        assert "Traceback" not in found.reason
        assert "\n" not in found.reason
        assert len(found.reason) < 250
        assert bool(found.reason) == (found.status is not Status.SERVED)


@same_transformers
def test_the_page_shows_what_the_engine_does_now() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [attempt(model_type) for model_type in FEW]
    assert found == [BY_TYPE[model_type] for model_type in FEW], REGENERATE


@same_transformers
@pytest.mark.long
async def test_the_page_shows_what_the_engine_does_now_in_a_process_for_many_types() -> None:
    found = [outcome async for outcome in try_all(MANY)]
    assert found == [BY_TYPE[model_type] for model_type in MANY], REGENERATE


async def test_a_type_that_hangs_is_reported_and_the_next_one_is_tried() -> None:
    found = [outcome async for outcome in try_all(FEW, limit_s=0.01)]
    assert [o.model_type for o in found] == list(FEW)
    assert {(o.status, o.reason) for o in found} == {(Status.FAILED, "takes more than 0 s")}


async def test_a_type_that_ends_the_process_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(_: object) -> asyncio.subprocess.Process:
        code = "import os; os._exit(3)"
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE
        )

    monkeypatch.setattr(run, "_start", start)
    found = [outcome async for outcome in try_all(FEW)]
    assert [o.reason for o in found] == ["ends the process with status 3"] * 2


def test_outcomes_are_read_as_they_were_written(tmp_path: Path) -> None:
    outcomes = Outcomes(version="5.0", outcomes=(outcome(adapters="all linears"),))
    write_outcomes(outcomes, tmp_path / "outcomes.json")
    assert read_outcomes(tmp_path / "outcomes.json") == outcomes


def test_a_row_shows_the_reason_and_what_vllm_did() -> None:
    assert row(outcome(adapters="all linears"), None) == (
        "| `llama` | `LlamaForCausalLM` | served | all linears |  |"
    )
    native, vllm = outcome(Status.REFUSED, "a|b"), outcome(adapters="adapters")
    assert row(native, vllm) == (
        "| `llama` | `LlamaForCausalLM` | refused: a\\|b |  | served, adapters |"
    )


def test_every_type_that_the_native_engine_refuses_was_tried_on_vllm() -> None:
    refused = {o.model_type for o in STORED.outcomes if o.status is Status.REFUSED}
    assert {o.model_type for o in read_outcomes(VLLM_FILE).outcomes} == refused


def test_the_cause_is_the_first_error_of_a_log() -> None:
    log = "INFO start\n(Worker pid=8) ERROR 12-01 [a.py:9] ValueError: bad\nRuntimeError: worse\n"
    assert _cause(log) == "ValueError: bad"
    assert _cause("INFO start\n") == ""


@pytest.mark.parametrize("model_type", ["gemma3_text", "qwen3_next", "gpt2", "deepseek_v3"])
def test_a_tiny_model_keeps_a_layer_of_each_kind(model_type: str) -> None:
    whole, tiny = transformers.AutoConfig.for_model(model_type), tiny_config(model_type)
    assert (tiny.hidden_size, tiny.vocab_size) == (64, 320)
    assert 2 <= tiny.num_hidden_layers <= 4
    for name in ("layer_types", "mlp_layer_types"):
        assert set(getattr(tiny, name, None) or ()) == set(getattr(whole, name, None) or ())


SMALL, MIDDLE, LARGE = MODELS


@pytest.mark.parametrize(
    ("model", "weights"),
    [(SMALL, 1_235_814_400), (MIDDLE, 8_030_261_248), (LARGE, 70_553_706_496)],
)
def test_weights_are_those_of_the_published_models(model: Shape, weights: int) -> None:
    assert model.weight_bytes == 2 * weights


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("rank", [8, 16, 64])
def test_adapters_and_tokens_take_the_memory_that_the_engine_gives_them(
    model: Shape, rank: int
) -> None:
    linears = {
        f"layers.{layer}.{index}": ModuleShape(width, out)
        for layer in range(model.layers)
        for index, (width, out) in enumerate(model.linears)
    }
    base = BaseModules(
        model_type="made", linears=linears, conv1d=frozenset(), others={}, all_linear=frozenset()
    )
    layout = PoolLayout(base, torch.bfloat16)
    blocks = [
        layout.blocks(GroupPages(group, pages_of_rank(rank))) for group in range(len(layout.groups))
    ]
    assert model.adapter_bytes(rank) == sum(b.number * b.units for b in blocks) * UNIT_BYTES
    of_layer = KVShape(model.kv_heads, model.head_dim, model.head_dim)
    assert model.kv_bytes == model.layers * of_layer.num_bytes(torch.bfloat16)


def test_a_model_fits_on_one_card_or_needs_several() -> None:
    assert "| Llama-3.1-8B | 80 GiB |" in PAGE.read_text()
    for model in MODELS:
        for card in CARDS_GIB:
            found = sizes(model, card)
            assert (found is None) == (cards_needed(model, card) > 1)
            if found is not None:
                taken = model.weight_bytes + found.parts.kv + found.parts.adapters
                assert taken + found.step_bytes <= 0.9 * card * GIB
