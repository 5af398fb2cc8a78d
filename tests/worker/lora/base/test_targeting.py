"""The base's modules, and those that a configuration selects, as by PEFT."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers, check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from targets import targeting
from tiny import ARCHITECTURES, tiny_model
from torch import nn
from transformers import PretrainedConfig

from shared.errors import AdapterRejected
from worker.lora.base.modules import ModuleShape, base_modules
from worker.lora.patterns.name_patterns import NamePatterns, PatternValues
from worker.lora.patterns.pattern_form import PatternForm

part = st.sampled_from(["a", "b", "q_proj", "layers", "h", "0", "1", "12"])
name = st.lists(part, min_size=1, max_size=5).map(".".join)
regex = st.sampled_from([r".*q_proj", r"a\..*", r".*\.(a|b)", "a|b.*", r".*\d", "b$", "^a"])
fields = st.fixed_dictionaries(
    {"target_modules": st.lists(name, max_size=3)},
    optional={
        "exclude_modules": st.one_of(st.lists(name, max_size=2), regex, st.just("")),
        "layers_to_transform": st.one_of(st.integers(0, 12), st.lists(st.integers(0, 2))),
        "modules_to_save": st.lists(st.one_of(name, regex), max_size=2),
    },
)
layers = st.one_of(st.just({}), st.fixed_dictionaries(
    {
        "layers_to_transform": st.lists(st.integers(0, 2), min_size=1),
        "layers_pattern": st.one_of(part, st.lists(st.one_of(part, st.just("a|h")), max_size=3)),
    }
))  # fmt: skip
by_regex = st.fixed_dictionaries(
    {"target_modules": regex},
    optional={
        "exclude_modules": st.one_of(st.lists(name, max_size=2), regex),
        "modules_to_save": st.lists(name, max_size=2),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.tuples(fields, layers).map(lambda two: two[0] | two[1]), by_regex),
       st.lists(name, min_size=1, max_size=8))  # fmt: skip
def test_the_same_modules_are_targeted_as_by_peft(
    config: dict[str, object], modules: list[str]
) -> None:
    wanted = LoraConfig(**config)
    expected = {module for module in modules if check_target_module_exists(wanted, module)}
    assert targeting(**config).targeted(modules) == expected


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.one_of(name, regex, st.just("^a|h")), st.integers(1, 9), max_size=5),
       st.lists(name, min_size=1, max_size=8))  # fmt: skip
def test_the_same_pattern_gives_a_modules_rank_as_in_peft(
    patterns: dict[str, int], modules: list[str]
) -> None:
    values = PatternValues("rank_pattern", patterns, may_be_slow=False)
    values.resolve(modules)
    for module in modules:
        assert values.get(module, 0) == patterns.get(get_pattern_key([*patterns], module), 0)


def test_pefts_default_patterns_are_matched_in_linear_time() -> None:
    for default in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.values():
        if isinstance(default, str):
            NamePatterns("target_modules", [default], PatternForm.NAME, may_be_slow=False)


@pytest.mark.parametrize("model_type", [*ARCHITECTURES, "gpt2", "opt", "qwen3_moe"])
def test_all_linear_stands_for_the_same_modules_as_in_peft(model_type: str) -> None:
    model = tiny_model(model_type)
    config = LoraConfig(target_modules="all-linear")
    assert (
        base_modules(model).all_linear
        == _maybe_include_all_linear_layers(config, model).target_modules
    )


def test_linears_of_the_decoder_are_found_with_their_shapes() -> None:
    base = base_modules(tiny_model("llama"))
    assert base.linears["model.layers.0.self_attn.k_proj"] == ModuleShape(64, 32)
    assert base.linears["model.layers.1.mlp.down_proj"] == ModuleShape(96, 64)
    assert len(base.linears) == 15
    assert base.head == list(base.linears)[-1] == "lm_head"
    assert (base.embedding.name, base.embedding.scale) == ("model.embed_tokens", 1.0)
    assert base.others["model.norm"] == "LlamaRMSNorm"
    assert base.norms["model.norm"] == {"weight": 64}
    assert base.model_type == "llama"
    gpt2 = base_modules(tiny_model("gpt2"))
    assert gpt2.linears["transformer.h.0.attn.c_attn"] == ModuleShape(64, 192)
    assert gpt2.conv1d == set(gpt2.linears) - {"lm_head"}


class Experts(nn.Module):
    """A layer whose experts are separate linears, as in older models."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        layer = nn.Module()
        layer.o = nn.Linear(2, 2)
        layer.experts = nn.ModuleList([nn.Linear(2, 2)])
        self.layers = nn.ModuleList([layer])

    def get_output_embeddings(self) -> None:
        return None

    def get_input_embeddings(self) -> None:
        return None


def test_experts_cannot_be_targeted_and_without_peft_defaults_targets_must_be_explicit() -> None:
    base = base_modules(Experts())
    assert set(base.linears) == {"layers.0.o"}
    with pytest.raises(AdapterRejected, match=r"layers\.0\.experts\.0 \(Linear\)"):
        base.targets(targeting(target_modules="all-linear"))
    with pytest.raises(AdapterRejected, match="target_modules isn't set"):
        base.targets(targeting())
