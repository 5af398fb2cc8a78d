"""Patterns of adapters match what Python's `re` matches, and take linear time."""

import re
import time
import warnings
from contextlib import suppress
from re import Match as ReMatch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import AdapterRejected
from worker.lora.patterns.name_patterns import (
    MAX_LAYER_PATTERNS,
    MAX_PATTERN_CHARS,
    MAX_PATTERNS,
    MAX_REGEX_CHARS,
    NamePatterns,
)
from worker.lora.patterns.pattern_form import Match, PatternForm

FIELD = "target_modules"
ATOMS = (
    *("a", "b", "A", "1", "_", "-", r"\.", ".", "é", "\u017f", "\u212a", "\u0130"),
    *(r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\b", r"\B", r"\A", r"\Z", "^", "$"),
    *("[ab]", "[^a]", "[a-c1-3]", r"[\d_]", r"[^\w]", "[]a]", "[^]a]", "[a-]", "[é-ü]", r"[\b]"),
    *(r"\x61", r"\141", r"\0", r"\u0061", r"\N{LATIN SMALL LETTER A}", "a{,2}", "a{2", "a{1,2}"),
    *("(?!)", "(?:)", "(?#comment)", "[[:alpha:]]", "[a&&b]", r"\Qa\E", r"\pL", r"\z", "(?i)a"),
)
patterns = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(
            st.sampled_from(
                ["(?:", "(", "(?i:", "(?s:", "(?m:", "(?x: ", "(?a:", "(?-i:", "(?P<g>"]
            ),
            inner,
            st.sampled_from([")", ")*", ")+?", ")??", "){2}", "){0,2}", "){1,}?", ")*+", "){3}"]),
        ).map("".join),
    ),
    max_leaves=6,
)
anything = st.text("ab1._-\\()[]{}|*+?^$,:<>=!#iPdwsbBAZz&~é", max_size=12)
names = st.text("abAB1_.- ks", min_size=1, max_size=9)
PREFIXES = st.sampled_from(["", "(?i)", "(?x)", "(?s)", "(?m)", "(?a)", "(?u)"])


def expected(form: PatternForm, pattern: str, name: str) -> ReMatch[str] | None:
    if form is PatternForm.NAME:
        return re.fullmatch(pattern, name)
    return re.match(form.regex(pattern), name)


@settings(max_examples=500, deadline=None)
@given(PREFIXES, st.one_of(patterns, anything), st.sampled_from(PatternForm), st.lists(names))
@example("", "a++a", PatternForm.NAME, ["aa"])
@example("", "a{,2}", PatternForm.NAME, ["aa", "a{,2}"])
@example("", "[[:alpha:]]", PatternForm.NAME, ["a", "a]", "l]"])
@example("", r"(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)\12", PatternForm.NAME, ["aaaaaaaaaa\n"])
@example("", "a|b", PatternForm.PART, ["ab", "b", "x.b.c", "x.a"])
@example("", "^a|b$", PatternForm.END, ["a", "x.a", "x.b"])
@example("", "a|x", PatternForm.LAYER, ["a.1.b.2.c", "q.x.7."])
def test_a_pattern_that_is_accepted_matches_what_re_matches(
    prefix: str, pattern: str, form: PatternForm, texts: list[str]
) -> None:
    pattern = prefix + pattern
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `re` announces future changes of its syntax
        try:
            accepted = NamePatterns(FIELD, [pattern], form, may_be_slow=False)
        except AdapterRejected:
            return
        found = accepted.first_matches(texts)
        for text in texts:
            match = expected(form, pattern, text)
            layer = match.groupdict().get("idx") if match else None
            has_layer = form is PatternForm.LAYER
            assert found.get(text) == (Match(0, layer if has_layer else None) if match else None)


USED_PATTERNS = [
    r".*self_attn.*(q_proj|k_proj|v_proj|o_proj)$",
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|gate_proj|up_proj|down_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\."
    r"(?:(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)))",
    r"model\.layers\.(1[0-9]|2\d)\..*_proj",
    r"(?i).*Q_PROJ",
]


@pytest.mark.parametrize("pattern", USED_PATTERNS)
def test_patterns_that_training_tools_write_are_accepted(pattern: str) -> None:
    modules = [
        f"model.layers.{layer}.self_attn.{end}" for layer in range(30) for end in ("q_proj", "x")
    ]
    found = NamePatterns(FIELD, [pattern], PatternForm.NAME, may_be_slow=False).first_matches(
        modules
    )
    assert {*found} == {module for module in modules if re.fullmatch(pattern, module)} != set()


SLOW = [r"(([a-z0-9_.]+)+)+#", r"(.*)*(.*)*(.*)*#", r"(a|a|[a-z._0-9])*#", r"(?:(?:.?){30}){30}#"]


@pytest.mark.parametrize("form", PatternForm)
@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_takes_exponential_time_in_re_takes_little(
    pattern: str, form: PatternForm
) -> None:
    modules = [f"model.layers.{i}.self_attn.q_proj" for i in range(1000)]
    start_s = time.thread_time()
    with suppress(AdapterRejected):  # some are refused for their size
        patterns = NamePatterns(FIELD, [pattern], form, may_be_slow=False)
        assert patterns.first_matches(modules) == {}
    assert time.thread_time() - start_s < 0.5


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(?!.*lm_head).*proj", "a lookaround"),
        (r"(?<=a)b", "a lookaround"),
        (r"(a|b)\1", "a reference to a group"),
        (r"(a)?(?(1)b|c)", "a reference to a group"),
        (r"(?>a+)a", "an atomic group"),
        (r"a*+a", "a possessive repetition"),
        (r"(a{99}){99}", "it repeats or lists too much"),
        (r"a{1001}", "it repeats a part more than 1000 times"),
    ],
)
def test_a_pattern_that_needs_backtracking_is_refused_with_its_reason(
    pattern: str, reason: str
) -> None:
    with pytest.raises(AdapterRejected, match=rf"target_modules=.*{reason}.*--adapters"):
        NamePatterns(FIELD, [pattern], PatternForm.NAME, may_be_slow=False)


def test_an_operators_pattern_that_needs_backtracking_is_matched() -> None:
    patterns = NamePatterns(FIELD, [r"(?!.*b)(.)\1"], PatternForm.NAME, may_be_slow=True)
    assert patterns.first_matches(["aa", "ab", "bb"]) == {"aa": Match(0)}
    patterns = NamePatterns("layers_pattern", [r"(?=h)h"], PatternForm.LAYER, may_be_slow=True)
    assert patterns.first_matches(["x.h.12.q", "x.y.1.q"]) == {"x.h.12.q": Match(0, "12")}


@pytest.mark.slow  # two seconds of CPU time, its limit
def test_an_operators_pattern_that_takes_too_long_is_refused() -> None:
    patterns = NamePatterns(FIELD, [r"(?!x)(([a-z.]+)+)+#"], PatternForm.NAME, may_be_slow=True)
    with pytest.raises(AdapterRejected, match=r"target_modules=.*takes too much time or memory"):
        patterns.first_matches(["model.layers.self.attn.q.proj"])


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["a"] * (MAX_LAYER_PATTERNS + 1), f"more than {MAX_LAYER_PATTERNS} patterns"),
        (["a" * (MAX_PATTERN_CHARS + 1)], f"more than {MAX_PATTERN_CHARS} characters"),
        (["a*" * 2000] * 5, f"more than {MAX_REGEX_CHARS} characters"),
        (["(" * 2000 + ")" * 2000], "not a regular expression"),
        (["a{99999999999999999999}"], "not a regular expression"),
        (["("], "not a regular expression"),
        (["(?P<idx>a)"], "not a regular expression"),
    ],
    ids=["patterns", "length", "sum", "nesting", "repeat", "syntax", "group"],
)
def test_patterns_beyond_a_limit_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(AdapterRejected, match=message) as caught:
        NamePatterns("layers_pattern", patterns, PatternForm.LAYER, may_be_slow=True)
    assert len(str(caught.value)) < 400
    with pytest.raises(AdapterRejected, match=f"more than {MAX_PATTERNS} patterns"):
        NamePatterns("rank_pattern", ["a"] * (MAX_PATTERNS + 1), PatternForm.END, may_be_slow=False)


def test_patterns_that_take_too_long_together_are_refused() -> None:
    patterns = [f".*{'ab'[i % 2]}.{{{i % 90}}}[a-z]" for i in range(1200)]
    modules = [f"model.layers.{i}.self_attn.q_proj.{'ab' * 20}" for i in range(2000)]
    start_s = time.thread_time()
    with pytest.raises(AdapterRejected, match=r"write a simpler one|lists too much"):
        NamePatterns("rank_pattern", patterns, PatternForm.END, may_be_slow=False).first_matches(
            modules
        )
    assert time.thread_time() - start_s < 1


def test_one_pattern_for_each_module_is_matched_in_time() -> None:
    ends = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj")
    modules = [f"model.layers.{i}.{end}" for i in range(126) for end in ends]
    patterns = NamePatterns("rank_pattern", modules, PatternForm.END, may_be_slow=False)
    found = patterns.first_matches(modules)
    assert [match.pattern for match in found.values()] == [*range(len(modules))]
