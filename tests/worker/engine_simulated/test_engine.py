"""Adapters, ends, texts and refusals of the simulated engine. The contract tests cover the rest."""

import hashlib
import time
from typing import Any

import pytest
from engine_requests import make_request
from queue_support import make_job

from shared.errors import AdapterRejected, ErrorCode, JobFailed
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.results import FinishReason
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from shared.store.adapters.inspections import Inspection
from worker.engine.request import ChoiceSampling, Request, StepOutput
from worker.engine_simulated.adapters import NUM_BYTES, SimulatedHostMemory, SimulatedSource
from worker.engine_simulated.engine import SimulatedEngine
from worker.engine_simulated.text import SimulatedGrammars, SimulatedTokenizer
from worker.engine_simulated.tokens import END_ID, FIRST_ID, VOCAB_SIZE
from worker.text.interface import EncodedPrompt

BASE = AdapterVersion("base@000000000000")
PROMPT = [1, 2, 3]


def engine_of(step_s: float = 0) -> SimulatedEngine:
    return SimulatedEngine(
        BASE, max_num_seqs=1000, max_model_len=4096, adapter_bytes=0, step_s=step_s
    )


def request(seed: int, **fields: Any) -> Request:
    given = {"max_tokens": 2000, "claim_epoch": 5, "sampling": ChoiceSampling(seed=seed), **fields}
    return make_request(f"{seed}", PROMPT, **given)


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
    assert stream.is_stopped


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
