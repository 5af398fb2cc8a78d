"""A configuration selects the modules that PEFT selects."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from targets import targeting

from shared.errors import AdapterRejected
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


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
def test_a_clients_pattern_that_needs_backtracking_is_refused_by_its_field(field: str) -> None:
    with pytest.raises(AdapterRejected, match=rf"^{field}='\(\?!a\)"):
        targeting(**{field: r"(?!a).*"})
