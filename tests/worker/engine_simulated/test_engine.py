"""Adapters, ends, texts, refusals and the checker of the simulated engine.

The contract tests cover the rest.
"""

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import pytest
from engine_requests import make_request
from hypothesis import given
from hypothesis import strategies as st
from queue_support import make_job

from shared.errors import AdapterRejected, ErrorCode, JobFailed
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.results import FinishReason
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.store.adapters.inspections import Inspection
from worker.engine.request import ChoiceSampling, Request, StepOutput
from worker.engine_simulated.adapters import NUM_BYTES, SimulatedHostMemory, SimulatedSource
from worker.engine_simulated.checker import Fault, Verdict, check
from worker.engine_simulated.engine import SimulatedEngine
from worker.engine_simulated.text import SimulatedGrammars, SimulatedTokenizer
from worker.engine_simulated.tokens import (
    END_ID,
    FIRST_ID,
    NUM_EPOCHS,
    TEXT_CHARS,
    VOCAB_SIZE,
    State,
    chat_text,
    first_state,
    next_step,
    prompt_ids,
    resume_state,
    token_text,
)
from worker.text.interface import EncodedPrompt

BASE = AdapterVersion("base@000000000000")


def engine_of(step_s: float = 0, answer_tokens: int | None = None) -> SimulatedEngine:
    return SimulatedEngine(
        BASE,
        max_num_seqs=1000,
        max_model_len=4096,
        adapter_bytes=0,
        step_s=step_s,
        answer_tokens=answer_tokens,
    )


def request(seed: int, **fields: Any) -> Request:
    given = {"max_tokens": 2000, "claim_epoch": 5, "sampling": ChoiceSampling(seed=seed), **fields}
    return make_request(f"{seed}", [1, 2, 3], **given)


def run(engine: SimulatedEngine, *requests: Request) -> list[StepOutput]:
    """Run requests to their end and return the last output of each."""
    for each in requests:
        engine.add(each)
    ends = []
    while engine.has_work:
        ends += [output for output in engine.step() if output.finish]
    return ends


def test_the_end_token_comes_after_256_tokens_on_average_and_later_or_never_if_it_is_asked() -> (
    None
):
    stop: dict[str, Any] = {"stop_ids": frozenset({END_ID})}
    usual = [request(seed, **stop) for seed in range(400)]
    patient = [
        request(seed, sampling=ChoiceSampling(seed=seed, min_tokens=300), **stop)
        for seed in range(400, 700)
    ]
    ignoring = [request(seed, max_tokens=500) for seed in range(700, 800)]
    ends = run(engine_of(), *usual, *patient, *ignoring)
    assert {end.token_id for end in ends if end.finish is FinishReason.STOP} == {END_ID}
    assert 200 < sum(len(each.output_ids) for each in usual) / len(usual) < 320
    assert 301 <= min(len(each.output_ids) for each in patient) < 320
    assert {len(each.output_ids) for each in ignoring} == {500}


def test_an_answer_ends_after_the_set_number_of_tokens_unless_its_request_says_otherwise() -> None:
    stop: dict[str, Any] = {"stop_ids": frozenset({END_ID})}
    usual = [request(seed, **stop) for seed in range(400)]
    short = request(400, max_tokens=5, **stop)
    patient = request(401, sampling=ChoiceSampling(seed=401, min_tokens=12), **stop)
    ignoring = request(402, max_tokens=50)
    run(engine_of(answer_tokens=7), *usual, short, patient, ignoring)
    assert {(len(each.output_ids), each.output_ids[-1]) for each in usual} == {(8, END_ID)}
    assert [len(each.output_ids) for each in (short, patient, ignoring)] == [5, 13, 50]


def test_a_step_takes_the_set_time_whatever_the_number_of_requests() -> None:
    engine = engine_of(step_s=0.02)
    started_s = time.monotonic()
    run(engine, *(request(seed, max_tokens=5) for seed in range(400)))
    assert 5 * 0.02 <= time.monotonic() - started_s < 400 * 5 * 0.02 / 2


SOURCE = SimulatedSource(load_s=0)


def test_a_version_is_the_name_and_a_digest_of_the_source() -> None:
    adapter = SOURCE.read("a", "x").weights
    assert adapter.version == "a@" + hashlib.sha256(b"x").hexdigest()[:12]
    entry = adapter.registry_entry("x")
    assert SOURCE.read_version(entry).weights == adapter
    assert adapter.named("b").version == "b" + adapter.version[1:]


def test_a_client_may_load_from_any_source_but_only_under_a_valid_name() -> None:
    found = SOURCE.inspect(Inspection(name="a", source="../any"))
    assert found.adapter.source == found.source == "../any"
    error = SOURCE.inspect(Inspection(name="..", source="x")).error
    assert error.code is ErrorCode.ADAPTER_REJECTED
    with pytest.raises(AdapterRejected, match="bad adapter name"):
        SOURCE.read("..", "x")


def test_host_memory_keeps_the_copies_that_were_used_last() -> None:
    memory = SimulatedHostMemory(2 * NUM_BYTES)
    a, b, c = (SOURCE.read(name, name).weights for name in "abc")
    for adapter in (a, b):
        memory.put(adapter)
    memory.touch(a.version)
    assert memory.put(c, may_evict=False) is c
    assert c.version not in memory
    memory.put(c)
    assert memory.take(b.version) is None
    assert memory.take(a.version) is a
    assert memory.num_bytes == 2 * NUM_BYTES
    memory.drop(a.version)
    assert a.version not in memory


def job(*prompts: Any, **fields: Any) -> Job:
    return make_job("m@000000000000", prompts=prompts, **fields)


def test_a_prompt_is_its_utf_8_bytes_or_the_given_ids_and_a_chat_its_rendered_text() -> None:
    chat = job(endpoint=Endpoint.CHAT, messages=({"role": "user", "content": "hi"},))
    prompts = [*SimulatedTokenizer().encode(job("hé", (5, FIRST_ID)))]
    prompts += SimulatedTokenizer().encode(chat)
    rendered = list(b"user: hi\nassistant: ")
    assert [prompt.ids for prompt in prompts] == [[104, 195, 169], [5, FIRST_ID], rendered]


@pytest.mark.parametrize("prompt", ["", (), (-1,), (VOCAB_SIZE,)])
def test_an_empty_prompt_and_an_unknown_token_are_refused(prompt: Any) -> None:
    with pytest.raises(JobFailed, match="prompt") as failed:
        SimulatedTokenizer().encode(job(prompt))
    assert failed.value.error.param == "prompt"


def test_each_token_is_eight_hex_digits_the_end_is_nothing_and_a_stop_string_cuts_the_text() -> (
    None
):
    tokenizer, asked = SimulatedTokenizer(), job("hi", echo=True)
    stream = tokenizer.stream(asked, tokenizer.encode(asked)[0])
    assert stream.feed(FIRST_ID + 0xABC) == "hi00000abc"
    assert stream.next_token_text(END_ID) == ("<end>", None)
    assert stream.feed(END_ID) == ""
    asked = job("hi", sampling=SamplingParams(seed=1, stop=("ab",)))
    stream = tokenizer.stream(asked, tokenizer.encode(asked)[0])
    assert stream.feed(FIRST_ID + 0xAB1) == "00000"
    assert stream.stopped_by == "ab"


async def test_tools_and_schemas_are_refused_and_other_jobs_have_no_grammar() -> None:
    grammars, encoded = SimulatedGrammars(), EncodedPrompt([1], "")
    schema = SamplingParams(seed=1, json_schema="{}")
    tools = ToolUse(tools=(), choice=ToolChoice.AUTO, form=ToolForm.HERMES)
    for asked, param in (
        (job("hi", sampling=schema), "response_format"),
        (job("hi", tools=tools), "tools"),
    ):
        with pytest.raises(JobFailed, match="simulated engine") as failed:
            await grammars.for_job(asked, encoded)
        assert (failed.value.error.code, failed.value.error.param) == (
            ErrorCode.INVALID_VALUE,
            param,
        )
    assert await grammars.for_job(job("hi"), encoded) is None


VERSION = AdapterVersion("a@0123456789ab")
PROMPT = prompt_ids("hello")
SEED = 7

EPOCHS = st.integers(0, 2**53)
CLAIMS = st.lists(st.tuples(EPOCHS, st.integers(1, 12)), min_size=1, max_size=5)
"""Claims of one job: the epoch of each, and the number of tokens that it computes."""


def tokens_of(claims: Sequence[tuple[int, int]], start: State | None = None) -> list[str]:
    """Return the texts of the tokens that these claims compute, one after the other."""
    state = first_state(VERSION, PROMPT, seed=SEED) if start is None else start
    tokens = []
    for epoch, count in claims:
        for _ in range(count):
            step = next_step(state, epoch)
            state = step.state
            tokens.append(token_text(step.token_id))
    return tokens


def verdict_of(tokens: Sequence[str], num_tokens: int | None = None) -> Verdict:
    return check("".join(tokens), version=VERSION, prompt=PROMPT, seed=SEED, num_tokens=num_tokens)


def fault_of(tokens: Sequence[str], num_tokens: int | None = None) -> tuple[Fault, int] | None:
    violation = verdict_of(tokens, num_tokens).violation
    return (violation.fault, violation.index) if violation else None


@given(CLAIMS)
def test_a_text_of_one_or_more_claims_is_right(claims: list[tuple[int, int]]) -> None:
    tokens = tokens_of(claims)
    verdict = verdict_of(tokens, len(tokens))
    assert verdict.violation is None
    assert verdict.num_tokens == len(tokens)
    epochs = [epoch % NUM_EPOCHS for epoch, _ in claims]
    changes = [e for i, e in enumerate(epochs) if i == 0 or e != epochs[i - 1]]
    assert list(verdict.epochs) == changes


@given(CLAIMS, st.data())
def test_missing_repeated_and_swapped_tokens_are_detected(
    claims: list[tuple[int, int]], data: st.DataObject
) -> None:
    tokens = tokens_of([*claims, (1, 1)])
    at = data.draw(st.integers(0, len(tokens) - 2))
    assert fault_of(tokens[:at] + tokens[at + 1 :], len(tokens))[1] == at
    assert fault_of(tokens[: at + 1] + tokens[at:]) == (Fault.REPETITION, at + 1)
    swapped = [*tokens[:at], tokens[at + 1], tokens[at], *tokens[at + 2 :]]
    assert fault_of(swapped)[1] == at


@given(EPOCHS, EPOCHS, st.integers(0, 10), st.integers(1, 10), st.integers(1, 10))
def test_the_rest_of_another_claims_text_is_a_splice(
    first: int, second: int, num_common: int, num_first: int, num_second: int
) -> None:
    """The first claim goes on, although a second one has continued after the common tokens."""
    common = tokens_of([(first, num_common)])
    old = tokens_of([(first, num_common + num_first + num_second)])
    ids = [int(token, 16) + (1 << 32) for token in common]
    start = resume_state(first_state(VERSION, PROMPT, seed=SEED), ids)
    new = tokens_of([(second, num_second)], start)
    spliced = common + new + old[num_common + num_second :]
    index = num_common + num_second
    is_same_epoch = first % NUM_EPOCHS == second % NUM_EPOCHS
    found = fault_of(spliced)
    assert (found and found[1]) == (None if is_same_epoch else index)


@pytest.mark.parametrize(
    "other",
    [
        first_state(AdapterVersion("b@0123456789ab"), PROMPT, seed=SEED),
        first_state(VERSION, prompt_ids("hallo"), seed=SEED),
        first_state(VERSION, PROMPT, seed=SEED + 1),
        first_state(VERSION, PROMPT, seed=SEED, choice=1),
    ],
    ids=["version", "prompt", "seed", "choice"],
)
def test_a_text_of_another_job_is_a_splice(other: State) -> None:
    assert fault_of(tokens_of([(1, 5)], other)) == (Fault.SPLICE, 0)


def test_gaps_and_splices_are_named_and_too_few_and_too_many_tokens_are_detected() -> None:
    tokens = tokens_of([(1, 20)])
    violation = verdict_of(tokens[:5] + tokens[12:]).violation
    assert (violation.fault, violation.index) == (Fault.GAP, 5)
    assert str(violation) == f"gap at token 5: 7 tokens are missing before {tokens[12]}"
    violation = verdict_of(tokens_of([(1, 5), (2, 5)]) + tokens[10:]).violation
    assert str(violation) == f"splice at token 10: {tokens[10]} belongs to another history"
    assert fault_of(tokens, 21) == (Fault.GAP, 20)
    assert fault_of(tokens, 4) == (Fault.EXCESS, 4)


@pytest.mark.parametrize("text", ["zzzzzzzz", "0123", "0123456789", "ABCDEF01", "     1-1"])
def test_a_text_that_is_no_token_is_malformed(text: str) -> None:
    tokens = tokens_of([(1, 3)])
    assert fault_of([*tokens, text[:TEXT_CHARS]]) in [(Fault.MALFORMED, 3), (Fault.SPLICE, 3)]
    assert verdict_of([*tokens, text]).violation is not None


def test_a_stop_string_may_cut_the_last_token() -> None:
    text = "".join(tokens_of([(1, 5)]))[:-3]
    fields = {"version": VERSION, "prompt": PROMPT, "seed": SEED}
    cut = check(text, **fields, may_be_cut=True)  # type: ignore[arg-type]
    assert (cut.violation, cut.num_tokens) == (None, 4)
    whole = check(text, **fields).violation  # type: ignore[arg-type]
    assert whole.fault is Fault.MALFORMED


def test_a_chat_is_its_roles_and_contents() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert chat_text(messages) == "system: Be brief.\nuser: a\nb\nassistant: "
