"""Streams in all formats, and streams that continue after any of their events."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendered_job import events, spec, writer
from sse_events import SseEvent, answer_in, sse_events
from typed_events import folded

from api.follow.transcript import ChoiceTranscript, Delta
from api.formats import Stream, position_after, stream_of, whole_body
from api.render.catch_up import Misplaced
from api.render.stream_writer import DONE, StreamWriter
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.answers import AnswerSpec
from shared.protocol.events import Admitted
from shared.protocol.ids import JobId
from shared.protocol.jobs import Endpoint, View
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import FinishReason, Usage
from shared.protocol.tools import ToolForm, ToolUse
from shared.reasoning_form import ReasoningForm

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
USAGE = Usage(prompt_tokens=32, completion_tokens=2, cached_tokens=16)
BROKEN = JobError(code=ErrorCode.INTERNAL, message="broken")
TOOLS = ({"type": "function", "function": {"name": "add"}},)
FRAGMENTS = (
    *("<think>", "</think>", "</thi", "[THINK]", "[/THINK]"),
    *("<tool_call>", "</tool_call>", "<tool_c", "\n", " ", ";", "{", "}", "text", "é🙂"),
    *('{"name": "add", "arguments": {"a": 1}}', '{"name": "add", "parameters": {"b": "}"}}'),
    *('{"name": "none", "arguments": {}}', '{"name": "add", "arguments": {"a" x'),
    '<tool_call>\n{"name": "add", "arguments": {"a": [1, {"b": "\\""}]}}\n</tool_call>',
)
TYPED = (View.RESPONSES, View.MESSAGES)
OF_EVENTS = (View.OPENAI, *TYPED)
"""Views whose streams consist of server-sent events."""
LAST = {View.OPENAI: DONE, View.RESPONSES: b"", View.MESSAGES: b""}
"""What follows the last event with an id."""


def viewed(view: View, *, has_tools: bool = True, **fields: Any) -> AnswerSpec:
    tools = ToolUse(tools=TOOLS, form=ToolForm.HERMES) if has_tools else None
    return spec(view=view, tools=tools, request={"stop_sequences": ["!!"]}, **fields)


def continued(of: AnswerSpec, after: str | None) -> Stream:
    return stream_of(of, position_after(after or "", of, param="after"))


def rendered(of: AnswerSpec, deltas: Sequence[Delta], after: str | None = None) -> list[SseEvent]:
    """Return the events of a whole stream, or those after the event `after`."""
    stream = continued(of, after)
    raw = b"".join(stream.chunks([delta]) for delta in deltas) + stream.closing(USAGE)
    return sse_events(raw.decode())


def logprob(number: int) -> PositionLogprobs:
    token = TokenLogprob(token=f"t{number}", logprob=-float(number), bytes=None)
    return PositionLogprobs(chosen=token, top=(), offset=number)


@pytest.mark.parametrize("view", OF_EVENTS)
def test_an_error_ends_a_stream_and_comes_once(view: View) -> None:
    stream = stream_of(viewed(view))
    begun = stream.chunks([Delta(0, "one", None)])
    failure = stream.failure(BROKEN)
    *_, error = sse_events((begun + failure.removesuffix(LAST[view])).decode())
    names = {View.OPENAI: None, View.RESPONSES: "response.failed", View.MESSAGES: "error"}
    assert (error.id, error.event) == ("end", names[view])
    assert "broken" in error.data
    if view is View.MESSAGES:
        assert (error.json["type"], error.json["error"]["type"]) == ("error", "api_error")
    assert failure.endswith(LAST[view])
    again = continued(viewed(view), "end")
    assert again.chunks([Delta(0, "one", None)]) + again.failure(BROKEN) == LAST[view]


@pytest.mark.parametrize("view", OF_EVENTS)
def test_an_interrupted_stream_continues_after_its_last_event(view: View) -> None:
    of, answer = viewed(view), [Delta(0, "one two", STOP)]
    read = answer_in if view is View.OPENAI else folded
    stream = stream_of(of)
    begun = sse_events(stream.chunks([Delta(0, "one", None)]).decode())
    (last,) = sse_events(stream.interruption(BROKEN).decode())
    assert (last.id, last.retry) == (begun[-1].id, "1000")
    assert "broken" in last.data
    assert read([*begun, *rendered(of, answer, last.id)]) == read(rendered(of, answer))


@pytest.mark.parametrize("view", OF_EVENTS)
def test_an_answer_with_another_or_a_shorter_text_does_not_continue_a_stream(view: View) -> None:
    of = viewed(view)
    *_, last = sse_events(stream_of(of).chunks([Delta(0, "abc", None)]).decode())
    for other in (Delta(0, "abX", None), Delta(0, "ab", STOP)):
        with pytest.raises(Misplaced):
            continued(of, last.id).chunks([other])
    short = continued(of, last.id)
    assert short.chunks([Delta(0, "a", None)]) == b""
    (interrupted,) = sse_events(short.interruption(BROKEN).decode())
    assert interrupted.id == last.id
    with pytest.raises(Misplaced):
        short.closing(USAGE)


def test_a_stream_with_usage_has_it_in_the_last_chunk_and_null_before() -> None:
    with_usage = writer(include_usage=True)
    (chunk,) = events(with_usage.chunks([Delta(0, "x", None)]))
    assert chunk["usage"] is None
    (last,) = events(with_usage.closing(USAGE).removesuffix(DONE))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 34


def test_the_ids_of_a_stream_state_what_was_sent() -> None:
    stream = StreamWriter(spec(num_choices=2, include_usage=True))
    raw = stream.chunks([Delta(0, "abc", None), Delta(1, "x", STOP), Delta(0, "d", None)])
    raw += stream.closing(USAGE)
    ids = [event.id and event.id.partition("-")[0] for event in sse_events(raw.decode())]
    assert ids == ["start.1", "start.2", "3", "3~1:f*1", "3,f", "4,f", "end", None]


def test_chunks_have_token_ids_and_the_counts_so_far() -> None:
    stream = writer(returns_token_ids=True, continuous_usage=True)
    deltas = [Delta(0, "ab", None, (), (1, 2), (7, 8, 9)), Delta(0, "", STOP, (), (3,))]
    _, first, second, last = events(stream.chunks(deltas))
    ids = [each["choices"][0].get("token_ids") for each in (first, second, last)]
    assert ids == [[1, 2], [3], None]
    counts = [each["usage"] for each in (first, second, last)]
    assert [(each["prompt_tokens"], each["completion_tokens"]) for each in counts] == [
        (3, 2),
        (3, 3),
        (3, 3),
    ]


def test_the_first_chunk_of_a_chat_has_the_token_ids_of_the_prompt_and_waits_for_them() -> None:
    stream = StreamWriter(spec(returns_token_ids=True))
    assert stream.chunks([Admitted(job=JobId("a"), try_=0, prompt_tokens=3)]) == b""
    first, second = events(stream.chunks([Delta(0, "b", None, (), (1,), (7, 8, 9))]))
    assert first["prompt_token_ids"] == [7, 8, 9]
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert "prompt_token_ids" not in second
    assert second["choices"][0]["token_ids"] == [1]


def test_opening_chunks_count_the_prompt_if_every_chunk_has_counts() -> None:
    stream = StreamWriter(spec(num_choices=2, continuous_usage=True))
    admitted = Admitted(job=JobId("a"), try_=0, prompt_tokens=3)
    chunks = events(stream.chunks([admitted, Delta(1, "b", None, (), (1,), (7, 8, 9))]))
    counts = [(each["usage"]["prompt_tokens"], each["usage"]["total_tokens"]) for each in chunks]
    assert counts == [(3, 3), (3, 3), (3, 4)]


def test_ids_of_many_choices_are_short() -> None:
    stream = writer(Endpoint.COMPLETIONS, num_choices=128)
    raw = stream.chunks([Delta(choice, "x" * 800, None) for choice in range(128)])
    raw += stream.chunks([Delta(choice, "x", STOP) for choice in range(128)])
    ids = [event.id or "" for event in sse_events(raw.decode())]
    assert len(ids[0]) == len("800-") + 8
    assert max(map(len, ids)) < 128 * len("800,") + 9


@dataclass(frozen=True)
class Answer:
    """One choice of an answer."""

    pieces: tuple[str, ...]
    finish: FinishReason
    prompt_logprobs: int


ANSWERS = st.builds(
    Answer,
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(tuple),
    st.sampled_from([STOP, LENGTH]),
    st.sampled_from([0, 3]),
)


def deltas_of(of: AnswerSpec, answers: Sequence[Answer], cuts: st.DataObject) -> list[Delta]:
    """Return the answers, divided into deltas of the choices in any order."""
    streams = [list(_deltas(of, i, answer, cuts)) for i, answer in enumerate(answers)]
    order = cuts.draw(st.permutations([i for i, each in enumerate(streams) for _ in each]))
    return [streams[i].pop(0) for i in order]


def _deltas(of: AnswerSpec, choice: int, answer: Answer, cuts: st.DataObject) -> Iterator[Delta]:
    text = "".join(answer.pieces)
    points = st.lists(st.integers(0, len(text)), max_size=6).map(sorted)
    ends = [*cuts.draw(points), len(text)]
    number = start = num_ids = 0
    for i, end in enumerate(ends):
        is_last = i == len(ends) - 1
        logprobs: list[PositionLogprobs] = []
        if of.has_logprobs:
            num = 2 * end + answer.prompt_logprobs
            logprobs = [logprob(k) for k in range(number, num)]
            number = num
        ids = tuple(range(num_ids, 3 * end)) if of.counts_tokens else ()
        prompt_ids = (7, 8, 9) if ids and not num_ids else ()
        finish = answer.finish if is_last else None
        yield Delta(choice, text[start:end], finish, tuple(logprobs), ids, prompt_ids)
        start, num_ids = end, num_ids + len(ids)


def specs() -> st.SearchStrategy[AnswerSpec]:
    def build(form: ToolForm | None, parallel: bool, **fields: Any) -> AnswerSpec:
        tools = ToolUse(tools=TOOLS, form=form, is_parallel=parallel) if form else None
        return spec(tools=tools, include_usage=True, **fields)

    chats = st.builds(
        build,
        st.sampled_from([None, *ToolForm]),
        st.booleans(),
        num_choices=st.integers(1, 3),
        has_logprobs=st.booleans(),
        reasoning=st.sampled_from([None, *ReasoningForm]),
        hides_reasoning=st.booleans(),
        returns_token_ids=st.booleans(),
        continuous_usage=st.booleans(),
        echoed=st.sampled_from(["", "so far"]),
    )
    completions = st.builds(
        lambda num, logprobs, ids: spec(
            Endpoint.COMPLETIONS,
            num_choices=num,
            has_logprobs=logprobs,
            returns_token_ids=ids,
            continuous_usage=ids,
        ),
        st.integers(1, 4),
        st.booleans(),
        st.booleans(),
    )
    return chats | completions


def test_a_stream_of_answers_without_tokens_continues_with_the_tokens_of_the_prompt() -> None:
    fields = {"has_logprobs": True, "returns_token_ids": True, "continuous_usage": True}
    of = spec(Endpoint.COMPLETIONS, num_choices=2, **fields)
    deltas = [Delta(i, "hi", LENGTH, (logprob(0), logprob(1)), (), (7, 8, 9)) for i in (0, 1)]
    first, second, _ = whole = rendered(of, deltas)
    for event in (first, second):
        [choice] = event.json["choices"]
        assert (choice["token_ids"], choice["prompt_token_ids"]) == ([], [7, 8, 9])
        assert event.json["usage"]["prompt_tokens"] == 3
        assert event.json["usage"]["completion_tokens"] == 0
    for count, event in enumerate((first, second), 1):
        stream = continued(of, event.id)
        raw = stream.chunks(deltas) + stream.closing(USAGE)  # the answers are already complete
        assert sse_events(raw.decode()) == whole[count:]


@given(specs(), st.data())
def test_a_stream_that_continues_after_any_event_has_exactly_the_rest(
    of: AnswerSpec, data: st.DataObject
) -> None:
    answers = [data.draw(ANSWERS) for _ in range(of.num_choices)]
    whole, again = rendered(of, deltas_of(of, answers, data)), deltas_of(of, answers, data)
    expected = answer_in(whole)
    for count, event in enumerate(whole[:-1], 1):
        assert answer_in([*whole[:count], *rendered(of, again, event.id)]) == expected
    assert answer_in(rendered(of, again)) == expected


@given(specs(), st.data())
def test_a_stream_may_be_cut_again_and_again(of: AnswerSpec, data: st.DataObject) -> None:
    answers = [data.draw(ANSWERS)] * of.num_choices
    divisions = [deltas_of(of, answers, data) for _ in range(3)]
    expected = answer_in(rendered(of, divisions[0]))
    client: list[SseEvent] = []
    for division in itertools.cycle(divisions):
        rest = rendered(of, division, client[-1].id if client else None)
        client += rest[: data.draw(st.integers(1, len(rest)))]
        if client[-1].data == "[DONE]":
            break
    assert answer_in(client) == expected


def divided(text: str, finish: FinishReason, cuts: Sequence[int]) -> list[Delta]:
    """Return the text as deltas that end at `cuts`. Each character is a token."""
    ends = [*sorted(cut for cut in cuts if cut < len(text)), len(text)]
    starts = [0, *ends[:-1]]
    return [
        Delta(0, text[a:b], finish if b == len(text) else None, tuple(map(logprob, range(a, b))))
        for a, b in zip(starts, ends, strict=True)
        if a < b or b == len(text)
    ]


SPECS = st.builds(
    viewed,
    st.sampled_from(TYPED),
    has_tools=st.booleans(),
    has_logprobs=st.booleans(),
    reasoning=st.sampled_from([None, ReasoningForm.THINK]),
)
TEXTS = st.lists(st.sampled_from((*FRAGMENTS, "!!")), max_size=8).map("".join)
CUTS = st.lists(st.integers(1, 200), max_size=6)


@given(SPECS, TEXTS, st.sampled_from([STOP, LENGTH]), CUTS, CUTS)
def test_a_stream_of_typed_events_that_continues_after_any_event_has_exactly_the_rest(
    of: AnswerSpec, text: str, finish: FinishReason, cuts: list[int], others: list[int]
) -> None:
    text = text.replace("!!", "") + ("!!" if text.endswith("!!") else "")
    # A worker publishes a stop sequence in one piece.
    safe = [cut for cut in cuts if cut <= len(text.removesuffix("!!"))]
    again = [cut for cut in others if cut <= len(text.removesuffix("!!"))]
    whole = rendered(of, divided(text, finish, safe))
    expected = folded(whole)
    for count, event in enumerate(whole, 1):
        rest = rendered(of, divided(text, finish, again), event.id)
        assert folded([*whole[:count], *rest]) == expected
    assert folded(rendered(of, divided(text, finish, again))) == expected


@given(SPECS, TEXTS, st.sampled_from([STOP, LENGTH]), CUTS)
def test_the_last_event_of_a_response_has_the_whole_body(
    of: AnswerSpec, text: str, finish: FinishReason, cuts: list[int]
) -> None:
    text = text.replace("!!", "")
    (delta,) = divided(text, finish, [])
    choice = ChoiceTranscript()
    choice.append(delta)
    body = whole_body(of, [choice], USAGE)
    events = rendered(of, divided(text, finish, cuts))
    numbers = [event.json.get("sequence_number", 0) for event in events]
    if of.view is View.RESPONSES:
        assert events[-1].json["response"] == body
        assert numbers == sorted(set(numbers))
    else:
        assert events[-2].json["delta"]["stop_reason"] == body["stop_reason"]


@pytest.mark.parametrize(
    "bad", ["x", "1", "1-123", "-1-00000000", "1" * 16 + "-00000000", "start.1"]
)
def test_a_malformed_id_is_refused(bad: str) -> None:
    with pytest.raises(JobFailed, match="isn't the id of an event"):
        position_after(bad, viewed(View.RESPONSES), param="after")
