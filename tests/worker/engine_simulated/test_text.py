"""Prompts and texts of the simulated engine, and requests that it refuses."""

import uuid
from typing import Any

import pytest

from shared.errors import ErrorCode, JobFailed
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.tools import ToolChoice, ToolForm, ToolUse
from worker.engine_simulated.text import SimulatedGrammars, SimulatedTokenizer
from worker.engine_simulated.tokens import END_ID, FIRST_ID, VOCAB_SIZE
from worker.text.interface import EncodedPrompt

PROMPT = EncodedPrompt([1], "")


def job(*prompts: Any, **fields: Any) -> Job:
    values: dict[str, Any] = {"endpoint": Endpoint.COMPLETIONS, "sampling": SamplingParams(seed=1)}
    return Job(
        id=JobId(uuid.uuid4().hex),
        model="m",
        version=AdapterVersion("m@000000000000"),
        created_s=0,
        deadline_ms=1000,
        cost=1,
        reply_to=ApiId("api"),
        prompts=prompts,
        **{**values, **fields},
    )


def ids_of(asked: Job) -> list[list[int]]:
    return [prompt.ids for prompt in SimulatedTokenizer().encode(asked)]


def test_a_prompt_is_its_utf_8_bytes_or_the_given_ids() -> None:
    assert ids_of(job("hé", (5, FIRST_ID))) == [[104, 195, 169], [5, FIRST_ID]]


def test_a_chat_is_its_rendered_text() -> None:
    chat = job(endpoint=Endpoint.CHAT, messages=({"role": "user", "content": "hi"},))
    assert ids_of(chat) == [list(b"user: hi\nassistant: ")]


@pytest.mark.parametrize("prompt", ["", (), (-1,), (VOCAB_SIZE,)])
def test_an_empty_prompt_and_an_unknown_token_are_refused(prompt: Any) -> None:
    with pytest.raises(JobFailed, match="prompt") as failed:
        SimulatedTokenizer().encode(job(prompt))
    assert failed.value.error.param == "prompt"


def test_each_token_is_eight_hex_digits_and_the_end_is_nothing() -> None:
    tokenizer, asked = SimulatedTokenizer(), job("hi", echo=True)
    stream = tokenizer.stream(asked, tokenizer.encode(asked)[0])
    assert stream.feed(FIRST_ID + 0xABC) == "hi00000abc"
    assert stream.next_token_text(END_ID) == ("<end>", None)
    assert stream.feed(END_ID) == ""


def test_a_stop_string_cuts_the_text() -> None:
    tokenizer, asked = (
        SimulatedTokenizer(),
        job("hi", sampling=SamplingParams(seed=1, stop=("ab",))),
    )
    stream = tokenizer.stream(asked, tokenizer.encode(asked)[0])
    assert stream.feed(FIRST_ID + 0xAB1) == "00000"
    assert stream.is_stopped


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"sampling": SamplingParams(seed=1, json_schema="{}")}, "response_format"),
        ({"tools": ToolUse(tools=(), choice=ToolChoice.AUTO, form=ToolForm.HERMES)}, "tools"),
    ],
)
async def test_tools_and_schemas_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(JobFailed, match="simulated engine") as failed:
        await SimulatedGrammars().for_job(job("hi", **fields), PROMPT)
    assert (failed.value.error.code, failed.value.error.param) == (ErrorCode.INVALID_VALUE, param)


async def test_other_jobs_have_no_grammar() -> None:
    assert await SimulatedGrammars().for_job(job("hi"), PROMPT) is None
