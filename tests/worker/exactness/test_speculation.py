"""Forced tokens and prompt lookup change no answer, whatever else happens to its request."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from engine_requests import make_request
from engines import engine_of, load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_schemas import random_schema, too_many_choices_later
from kernel_sets import NATIVE_DTYPES, linear_kernels
from tiny import save_adapter, tiny_model, tiny_tokenizer

from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.engine import NativeEngine
from worker.engine.grammar import Grammar, GrammarCompiler, json_source
from worker.engine.request import ChoiceSampling, Request, TokenLogprobs
from worker.engine.speculation.policy import Acceptance, StepDurations

pytestmark = pytest.mark.slow

TOKENIZER = tiny_tokenizer()
EOS_ID: int = TOKENIZER.eos_token_id
COMPILER = GrammarCompiler(TOKENIZER, vocab_size=len(TOKENIZER), eos_ids={EOS_ID})
NUM_SCHEMAS = 6
TOKENS = st.integers(6, len(TOKENIZER) - 1)


@cache
def grammar_of(number: int) -> Grammar:
    schema = {"enum": ["a long text", "a long test"]} if number == 0 else random_schema(number)
    return COMPILER.compile(json_source(json.dumps(schema)))


@dataclass(frozen=True)
class Case:
    """What a client asks, and what happens to the request."""

    prompt: tuple[int, ...]
    sampling: ChoiceSampling
    max_tokens: int
    stop_ids: frozenset[int]
    schema: int | None
    has_adapter: bool
    aborted_after: int | None
    """Number of steps after which the request is aborted."""

    def request(self, number: int, version: AdapterVersion, shown: tuple[int, ...] = ()) -> Request:
        return make_request(
            str(number),
            self.prompt,
            version=version if self.has_adapter else None,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop_ids=self.stop_ids,
            grammar=None if self.schema is None else grammar_of(self.schema).start(shown),
            output_ids=list(shown),
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Return a request whose prompt and answer often repeat themselves."""
    period = draw(st.lists(TOKENS, min_size=1, max_size=9))
    prompt = draw(st.lists(TOKENS, max_size=9)) + period * draw(st.integers(1, 6))
    temperature = draw(st.sampled_from([0.0, 0.0, 0.2, 1.0]))
    likely = draw(st.sampled_from([(), *[period[:3]] * 4, (*period[:3], EOS_ID)]))
    sampling = ChoiceSampling(
        seed=draw(st.integers(0, 9)),
        temperature=temperature,
        top_p=draw(st.sampled_from([1.0, 0.9])),
        top_k=draw(st.sampled_from([0, 5])),
        presence_penalty=draw(st.sampled_from([0.0, 0.0, 0.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, 0.2])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.1])),
        # A strong bias makes texts of few tokens, in which drafts are often right.
        logit_bias=tuple((token, 9.0) for token in dict.fromkeys(likely)),
        bad_words=draw(st.sampled_from([(), (), ((period[0],),), (tuple((period * 2)[:3]),)])),
        allowed_token_ids=draw(st.sampled_from([(), (), (), (*range(6, 200), EOS_ID)])),
        min_tokens=draw(st.sampled_from([0, 0, 12])),
        logprobs=draw(st.sampled_from([None, None, 2])),
    )
    return Case(
        prompt=tuple(prompt),
        sampling=sampling,
        max_tokens=draw(st.sampled_from([1, 7, 60, 60, 60])),
        stop_ids=frozenset({EOS_ID, *draw(st.sampled_from([(), (), (), (period[-1],)]))}),
        schema=draw(st.sampled_from([None, None, *range(NUM_SCHEMAS)])),
        has_adapter=draw(st.booleans()),
        aborted_after=draw(st.sampled_from([None] * 5 + [3])),
    )


@dataclass
class Answer:
    """All that an engine has returned for a request."""

    tokens: list[tuple[int | None, TokenLogprobs | None]] = field(default_factory=list)
    finish: FinishReason | None = None
    error: str | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token for token, _ in self.tokens if token is not None)


def answers(
    engine: NativeEngine, requests: Mapping[int, Request], aborted: Mapping[int, int] | None = None
) -> dict[int, Answer]:
    """Run requests to their ends, and abort some after a number of steps."""
    found = {number: Answer() for number in requests}
    for request in requests.values():
        engine.add(request)
    for step in range(100_000):
        for number, after in (aborted or {}).items():
            if after == step:
                engine.abort(requests[number].id)
        if not engine.has_work:
            break
        for output in engine.step():
            answer = found[int(output.request_id)]
            assert answer.finish is None
            if output.error is None:
                answer.tokens.append((output.token_id, output.logprobs))
            answer.finish = output.finish
            answer.error = output.error.message if output.error else None
    stats = engine.stats()
    assert stats.kv_blocks_free == stats.kv_blocks
    return found


@dataclass
class Engines:
    """Engines with the same weights. One of them forces tokens and looks them up."""

    plain: NativeEngine
    speculating: NativeEngine
    version: AdapterVersion


@pytest.fixture(
    params=[
        pytest.param(dtype, marks=() if dtype is torch.bfloat16 else pytest.mark.long)
        for dtype in NATIVE_DTYPES
    ],
    ids=str,
    scope="module",
)
def engines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engines]:
    """Engines with the fastest kernels here. `test_same_bits.py` has those of other levels."""
    linear_kernels(request.param)
    folder = tmp_path_factory.mktemp("adapters") / "a"
    adapters = {"a": save_adapter(folder, r=4, target_modules="all-linear")}

    def engine(*, speculates: bool, **sizes: int) -> tuple[NativeEngine, dict[str, AdapterVersion]]:
        loaded = load(tiny_model().to(request.param))
        options = {"caches_prefixes": speculates, "speculates": speculates}
        return engine_of(loaded, adapters, **sizes, **options)

    plain, versions = engine(num_blocks=400, budget=512, speculates=False)
    speculating, _ = engine(num_blocks=8, budget=23, speculates=True)
    with pytest.MonkeyPatch.context() as patch:
        # Drafts are verified whether they pay or not.
        patch.setattr(StepDurations, "estimate", lambda *_: 1.0)
        patch.setattr(Acceptance, "may_draft", lambda _: True)
        yield Engines(plain, speculating, versions["a"])


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(mix=st.lists(cases(), min_size=1, max_size=7), share=st.floats(0, 1))
def check_mix(engines: Engines, mix: list[Case], share: float) -> None:
    plain, speculating, version = engines.plain, engines.speculating, engines.version
    alone: dict[int, Answer] = {}
    for number, case in enumerate(mix):
        alone |= answers(plain, {number: case.request(number, version)})
    requests = {number: case.request(number, version) for number, case in enumerate(mix)}
    aborted = {n: c.aborted_after for n, c in enumerate(mix) if c.aborted_after is not None}
    together = answers(speculating, requests, aborted)
    for number, answer in together.items():
        if number in aborted:
            assert answer.tokens == alone[number].tokens[: len(answer.tokens)]
        else:
            assert answer == alone[number]
    shown = {number: answer.ids[: int(share * len(answer.ids))] for number, answer in alone.items()}
    resumable = {n: ids for n, ids in shown.items() if alone[n].finish and ids != alone[n].ids}
    resumed = answers(
        speculating, {n: mix[n].request(n, version, ids) for n, ids in resumable.items()}
    )
    for number, answer in resumed.items():
        assert answer.tokens == alone[number].tokens[len(shown[number]) :]
        assert answer.finish == alone[number].finish


def test_answers_are_equal_with_and_without_speculation(engines: Engines) -> None:
    check_mix(engines)
    stats, plain = engines.speculating.stats(), engines.plain.stats()
    assert plain.num_forced_tokens == plain.num_drafted_tokens == plain.num_accepted_tokens == 0
    assert stats.num_forced_tokens > 100
    assert 50 < stats.num_accepted_tokens < stats.num_drafted_tokens
    assert stats.num_preemptions > 10
    assert stats.num_cached_tokens > 0


def request_of(prompt: list[int], **changed: Any) -> Request:
    """Return a greedy request for 40 tokens of the base model."""
    greedy = ChoiceSampling(seed=0, temperature=0.0)
    fields = {"max_tokens": 40, "stop_ids": frozenset({EOS_ID}), "sampling": greedy, **changed}
    return make_request("0", prompt, **fields)


def test_the_context_ends_an_answer_at_the_same_token(engines: Engines) -> None:
    engine, _ = engine_of(load(tiny_model(max_position_embeddings=64)))
    for length in range(20, 64, 5):
        answer = answers(engine, {0: request_of([7, 8] * (length // 2), max_tokens=99)})[0]
        assert len(answer.tokens) == 64 - length // 2 * 2
        assert answer.finish is FinishReason.LENGTH
    assert engine.stats().num_accepted_tokens > 0


def test_a_later_request_reuses_blocks_of_accepted_tokens_only(engines: Engines) -> None:
    for seed in range(5):
        prompt = [7 + seed, 8, 9] * 5
        first = answers(engines.speculating, {0: request_of(list(prompt))})[0]
        longer = [*prompt, *first.ids]
        cached = engines.speculating.stats().num_cached_tokens
        again = answers(engines.speculating, {0: request_of(list(longer))})[0]
        # All full blocks but the one of the last token, whose keys weren't computed.
        assert engines.speculating.stats().num_cached_tokens - cached >= len(longer) - 17 - 16
        assert again == answers(engines.plain, {0: request_of(list(longer))})[0]


def test_a_grammar_that_becomes_too_complex_in_a_draft_goes_on_from_before_the_draft() -> None:
    grammar = COMPILER.compile(json_source(json.dumps(too_many_choices_later())))
    state = grammar.start()
    opening = TOKENIZER("[1,{", add_special_tokens=False)["input_ids"]
    assert len(state.look_ahead(opening)) < len(opening)
    for token in opening[:-1]:
        assert any(state.allowed())
        assert state.advance(token)
    assert not state.advance(opening[-1])
    assert not any(state.allowed())


def test_a_grammar_looks_ahead_up_to_the_first_token_that_it_forbids() -> None:
    state = grammar_of(0).start()
    ids = TOKENIZER('"a long', add_special_tokens=False)["input_ids"]
    masks = state.look_ahead([*ids, EOS_ID, *ids])
    assert len(masks) == len(ids)
    for token, mask in zip(ids, masks, strict=True):
        assert state.advance(token)
        assert state.allowed() == mask


def test_a_forced_token_that_the_request_forbids_ends_it_with_an_error(engines: Engines) -> None:
    (quote,) = TOKENIZER('"', add_special_tokens=False)["input_ids"]
    for number in range(60):
        sampling = ChoiceSampling(seed=0, temperature=0.0, bad_words=((quote, number),))
        request = request_of([7] * 5, sampling=sampling, grammar=grammar_of(0).start())
        plain = request_of([7] * 5, sampling=sampling, grammar=grammar_of(0).start())
        assert answers(engines.speculating, {0: request}) == answers(engines.plain, {0: plain})
