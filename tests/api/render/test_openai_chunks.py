"""Answers in OpenAI's format: reasoning, tool calls and log-probabilities, whole and streamed."""

from dataclasses import replace
from typing import Any

import httpx
import openai
import orjson
import pytest
from api_support import BASE, ScriptedWorker
from hypothesis import given
from hypothesis import strategies as st
from rendered_job import events, spec, writer
from sse_events import sse_events
from translated_jobs import HI
from weather_tool import ANSWER, BODY, OSAKA, OSLO, TOOLS, URL, call

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.openai_chunks import ChatFormat, complete_body, format_of
from api.render.reasoning import ReasoningParser
from shared.protocol.jobs import Endpoint
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason, Usage
from shared.reasoning_form import ReasoningForm
from shared.store.adapters.registry import Registry

THINKING_BASE = replace(BASE, reasoning=ReasoningForm.THINK)
STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
THINK, MISTRAL = ReasoningForm.THINK, ReasoningForm.MISTRAL
FRAGMENTS = (
    *("<think>", "</think>", "<thi", "</", "nk>", "[THINK]", "[/THINK]", "[", "<"),
    *(" ", "\n", "\n\n", "a", "bé", "🙂 x"),
)


def parsed(form: ReasoningForm, *pieces: str) -> tuple[str, str]:
    parser = ReasoningParser(form)
    splits = [*map(parser.feed, pieces), parser.close()]
    return "".join(s.reasoning for s in splits), "".join(s.content for s in splits)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>\na b\n</think>\n\nyes ", "a b", "yes "),
        ("\n<think>\n\n</think>\n\nyes", "", "yes"),
        ("<think>a", "a", ""),
        ("<think>a </thi", "a </thi", ""),
        ("<think>\n<think>\na</think>b", "a", "b"),
        ("<think>a</think>b</think>c<think>", "a", "b</think>c<think>"),
        ("<think>a<b</thin</think>", "a<b</thin", ""),
        (" yes", "", " yes"),
        ("<thi", "", "<thi"),
        ("a</think>b", "", "a</think>b"),
        ("the <think>a</think>", "", "the <think>a</think>"),
        ("[THINK]a[/THINK]b", "", "[THINK]a[/THINK]b"),
        ("", "", ""),
    ],
)
def test_text_is_split_at_its_markers(text: str, reasoning: str, content: str) -> None:
    assert parsed(THINK, text) == (reasoning, content)
    assert parsed(THINK, *text) == (reasoning, content)


def test_each_form_has_its_own_markers() -> None:
    assert parsed(MISTRAL, "[THINK]a</think>[/THINK]b") == ("a</think>", "b")


@given(st.sampled_from(ReasoningForm), st.lists(st.sampled_from(FRAGMENTS)), st.data())
def test_the_division_of_the_text_does_not_matter(
    form: ReasoningForm, fragments: list[str], data: st.DataObject
) -> None:
    text = "".join(fragments)
    cuts = data.draw(st.lists(st.integers(0, len(text))).map(sorted))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parsed(form, *pieces) == parsed(form, text)
    if not text.lstrip().startswith(form.opening):
        assert parsed(form, text) == ("", text)


def whole(text: str, finish: FinishReason = STOP, **fields: Any) -> dict[str, Any]:
    """Return the choice of a complete answer."""
    transcript = ChoiceTranscript.of(Choice(text=text, finish=finish, ids=(1,)))
    return ChatFormat(spec(**fields), stream=False).choice(0, transcript)


def test_the_markers_of_other_models_stay_in_the_content() -> None:
    message = whole("<think>why</think>so")["message"]
    assert message["content"] == "<think>why</think>so"
    assert "reasoning_content" not in message


def test_hidden_reasoning_is_left_out() -> None:
    message = whole("<think>why</think>so", reasoning=THINK, hides_reasoning=True)["message"]
    assert message == {"role": "assistant", "content": "so", "tool_calls": None}
    stream = writer(reasoning=THINK, hides_reasoning=True)
    chunks = events(stream.chunks([Delta(0, "<think>why</think>so", STOP)]))
    assert [c["choices"][0]["delta"] for c in chunks] == [{"content": "so"}, {}]


def test_a_stream_reports_reasoning_and_holds_markers_back() -> None:
    stream = writer(reasoning=THINK)
    deltas = [Delta(0, text, None) for text in ("<th", "ink>wh", "y </thi", "nk>\n", "so")]
    chunks = events(stream.chunks(deltas))
    assert [c["choices"][0]["delta"] for c in chunks] == [
        *({"reasoning_content": text, "reasoning": text} for text in ("wh", "y")),
        {"content": "so"},
    ]


def test_the_content_begins_with_the_echoed_message() -> None:
    message = whole("<think>why</think>so", reasoning=THINK, echoed="and ")["message"]
    assert (message["content"], message["reasoning_content"]) == ("and so", "why")
    opening = ChatFormat(spec(echoed="and "), stream=True).opening(2)
    assert [choice["delta"]["content"] for choice in opening] == ["and ", "and "]


async def test_the_reasoning_of_a_finished_job_can_be_streamed_later(
    http: httpx.AsyncClient, worker: ScriptedWorker, registry: Registry
) -> None:
    await registry.set_base(THINKING_BASE)
    body = {**BODY, "model": BASE.name, "tools": None, "background": True}
    accepted = (await http.post(URL, json=body)).json()
    job = await worker.take()
    await worker.finish(job, Choice(text="<think>why</think>so", finish=STOP, ids=(1, 2)))
    raw = (await http.get(f"/v1/jobs/{accepted['id']}/stream")).text
    deltas = [e.json["choices"][0]["delta"] for e in sse_events(raw) if e.data != "[DONE]"]
    assert {"reasoning_content": "why", "reasoning": "why"} in deltas
    assert {"content": "so"} in deltas


async def test_an_answer_cut_after_a_call_has_the_finish_reason_length(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request, job = await worker.sent(http.post(URL, json=BODY))
    text = f"{call(OSAKA)}\nAnd"
    await worker.finish(job, Choice(text=text, finish=LENGTH, ids=(1, 2)))
    choice = (await request).json()["choices"][0]
    assert len(choice["message"]["tool_calls"]) == 1
    assert choice["finish_reason"] == "length"


async def test_a_stream_has_the_tool_name_first_and_then_its_arguments_in_pieces(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request, job = await worker.sent(http.post(URL, json={**BODY, "stream": True}))
    text = ["Hm", '<tool_call>{"name": "weather", "argu', 'ments": {"city"', ': "Osaka"}}', ""]
    for i, part in enumerate(text):
        await worker.tokens(job, i, (i,), part, STOP if part == "" else None)
    await worker.finish(job)
    chunks = _chunks(await request)
    (start,) = chunks[2]["delta"]["tool_calls"]
    assert start.pop("id").startswith("call_")
    assert start == {
        "index": 0,
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    }
    assert [chunk["delta"] for chunk in (*chunks[:2], *chunks[3:])] == [
        {"role": "assistant", "content": ""},
        {"content": "Hm"},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ': "Osaka"}'}}]},
        {},
    ]
    assert [chunk["finish_reason"] for chunk in chunks] == [None] * 5 + ["tool_calls"]


def _chunks(response: httpx.Response) -> list[Any]:
    *chunks, _ = sse_events(response.text)
    return [chunk.json["choices"][0] for chunk in chunks]


async def test_openais_client_assembles_a_stream_to_the_complete_answer(
    client: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    async def stream() -> Any:
        async with client.chat.completions.stream(
            model="extract", messages=[HI], tools=TOOLS
        ) as stream:
            return await stream.get_final_completion()

    request, job = await worker.sent(stream())
    for i, char in enumerate(ANSWER):
        await worker.tokens(job, i, (i,), char, STOP if i == len(ANSWER) - 1 else None)
    await worker.finish(job)
    (choice,) = (await request).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    assert [c.function.arguments for c in choice.message.tool_calls] == [OSAKA, OSLO]


USAGE = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2)


def test_bodies_and_chunks_have_the_service_tier_and_bodies_the_cached_tokens() -> None:
    stored = Choice(text="x", finish=STOP, ids=(1, 2))
    body = complete_body(spec(service_tier="flex"), [ChoiceTranscript.of(stored)], USAGE)
    assert body["service_tier"] == "flex"
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    (chunk,) = events(writer(service_tier="flex").chunks([Delta(0, "x", None)]))
    assert chunk["service_tier"] == "flex"


def test_a_chat_chunk_carries_the_text() -> None:
    assert events(writer().chunks([Delta(0, "x", None)])) == [
        {
            "id": "chatcmpl-a1",
            "object": "chat.completion.chunk",
            "created": 5,
            "model": "m",
            "system_fingerprint": "fp_1",
            "weight_version": spec().version,
            "choices": [
                {"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}
            ],
        }
    ]


def test_tokens_without_visible_text_write_nothing() -> None:
    assert writer().chunks([Delta(0, "", None)]) == b""
    assert writer(Endpoint.COMPLETIONS).chunks([Delta(0, "", None)]) == b""


TOP = (
    TokenLogprob(token="x", logprob=-0.5, bytes=(120,)),
    TokenLogprob(token="<|end|>", logprob=-1.5, bytes=None),
)
SECOND = PositionLogprobs(
    chosen=TokenLogprob(token="\ufffd", logprob=-2.0, bytes=(195,)), top=TOP, offset=4
)
FIRST = PositionLogprobs(
    chosen=TokenLogprob(token="p", logprob=None, bytes=(112,)), top=(), offset=0
)
CHAT_SECOND = {
    "content": [
        {
            "token": "\ufffd",
            "logprob": -2.0,
            "bytes": [195],
            "top_logprobs": [
                {"token": "x", "logprob": -0.5, "bytes": [120]},
                {"token": "<|end|>", "logprob": -1.5, "bytes": None},
            ],
        }
    ],
    "refusal": None,
}


def test_logprobs_are_in_the_chunk_with_their_text() -> None:
    chunks = events(writer(has_logprobs=True).chunks([Delta(0, "x", STOP, (SECOND,))]))
    assert [chunk["choices"][0]["logprobs"] for chunk in chunks] == [CHAT_SECOND, None]


def test_a_token_without_visible_text_has_logprobs() -> None:
    (chunk,) = events(writer(has_logprobs=True).chunks([Delta(0, "", None, (SECOND,))]))
    assert chunk["choices"][0]["delta"] == {"content": ""}
    assert chunk["choices"][0]["logprobs"] == CHAT_SECOND
    completion = writer(Endpoint.COMPLETIONS, has_logprobs=True)
    (chunk,) = events(completion.chunks([Delta(0, "", None, (SECOND,))]))
    assert chunk["choices"][0]["logprobs"]["tokens"] == ["\ufffd"]


def test_a_complete_chat_has_logprobs_if_requested_even_without_tokens() -> None:
    transcript = ChoiceTranscript(parts=["x"], logprobs=[SECOND], finish=STOP)
    requested = format_of(spec(has_logprobs=True), stream=False)
    assert parsed_json(requested.choice(0, transcript)["logprobs"]) == CHAT_SECOND
    empty = ChoiceTranscript(finish=STOP)
    assert requested.choice(0, empty)["logprobs"] == {"content": [], "refusal": None}
    assert format_of(spec(), stream=False).choice(0, empty)["logprobs"] is None


def test_a_completion_has_its_logprobs_in_lists() -> None:
    transcript = ChoiceTranscript(parts=["px"], logprobs=[FIRST, SECOND], finish=STOP)
    answer_format = format_of(spec(Endpoint.COMPLETIONS, has_logprobs=True), stream=False)
    choice = answer_format.choice(0, transcript)
    assert choice["logprobs"] == {
        "tokens": ["p", "\ufffd"],
        "token_logprobs": [None, -2.0],
        "top_logprobs": [None, {"x": -0.5, "<|end|>": -1.5, "\ufffd": -2.0}],
        "text_offset": [0, 4],
    }


def parsed_json(body: Any) -> Any:
    return orjson.loads(orjson.dumps(body))


def test_scores_of_a_prompt_are_at_each_of_its_choices_or_once_in_a_chat() -> None:
    rendered = [None, {"5": {"logprob": -0.5, "rank": 2, "decoded_token": "x"}}]
    one, single = orjson.dumps(rendered).decode(), "[null]"
    choices = [
        ChoiceTranscript(parts=["a"], finish=STOP, prompt_scores=scores)
        for scores in (one, "", single, "")
    ]
    body = parsed_json(
        complete_body(spec(Endpoint.COMPLETIONS, has_prompt_scores=True), choices, USAGE)
    )
    assert [each["prompt_logprobs"] for each in body["choices"]] == 2 * [rendered] + 2 * [[None]]
    chat = parsed_json(complete_body(spec(has_prompt_scores=True), choices[:2], USAGE))
    assert chat["prompt_logprobs"] == rendered
    assert "prompt_logprobs" not in chat["choices"][0]
    plain = complete_body(spec(), choices[:1], USAGE)
    assert "prompt_logprobs" not in plain
