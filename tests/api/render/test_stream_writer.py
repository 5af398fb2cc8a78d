"""Streams of server-sent events, and streams that continue after any of their events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendered_job import events, spec, writer
from sse_events import SseEvent, answer_in, sse_events

from api.follow.transcript import Delta
from api.http.errors import job_error_body
from api.render.catch_up import Misplaced
from api.render.event_ids import parse_event_id
from api.render.stream_writer import DONE, StreamWriter
from shared.errors import ErrorCode, JobError
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import Endpoint
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import FinishReason, Usage
from shared.protocol.tools import ToolForm, ToolUse
from shared.reasoning_form import ReasoningForm

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
USAGE = Usage(prompt_tokens=32, completion_tokens=2)
BROKEN = JobError(code=ErrorCode.INTERNAL, message="broken")
TOOLS = ({"type": "function", "function": {"name": "add"}},)
FRAGMENTS = (
    *("<think>", "</think>", "</thi", "[THINK]", "[/THINK]"),
    *("<tool_call>", "</tool_call>", "<tool_c", "\n", " ", ";", "{", "}", "text", "é🙂"),
    *('{"name": "add", "arguments": {"a": 1}}', '{"name": "add", "parameters": {"b": "}"}}'),
    *('{"name": "none", "arguments": {}}', '{"name": "add", "arguments": {"a" x'),
    '<tool_call>\n{"name": "add", "arguments": {"a": [1, {"b": "\\""}]}}\n</tool_call>',
)


def test_a_stream_ends_with_done() -> None:
    assert writer().closing(USAGE) == b"data: [DONE]\n\n"


def test_a_stream_with_usage_has_it_in_the_last_chunk_and_null_before() -> None:
    with_usage = writer(include_usage=True)
    (chunk,) = events(with_usage.chunks([Delta(0, "x", None)]))
    assert chunk["usage"] is None
    (last,) = events(with_usage.closing(USAGE).removesuffix(DONE))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 34


def test_text_of_any_language_stays_on_one_line_of_the_stream() -> None:
    raw = writer().chunks([Delta(0, "你好\n\nπ", None)])
    assert raw.count(b"\n") == 3
    assert events(raw)[0]["choices"][0]["delta"]["content"] == "你好\n\nπ"


def test_the_ids_of_a_stream_state_what_was_sent() -> None:
    stream = StreamWriter(spec(num_choices=2, include_usage=True))
    raw = stream.chunks([Delta(0, "abc", None), Delta(1, "x", STOP), Delta(0, "d", None)])
    raw += stream.closing(USAGE)
    ids = [event.id and event.id.partition("-")[0] for event in sse_events(raw.decode())]
    assert ids == ["start.1", "start.2", "3", "3~1:f*1", "3,f", "4,f", "end", None]


def test_chunks_have_token_ids_and_the_counts_so_far() -> None:
    stream = writer(returns_token_ids=True, continuous_usage=True)
    deltas = [Delta(0, "ab", None, (), (1, 2), (7, 8, 9)), Delta(0, "", STOP, (), (3,))]
    first, second, last = events(stream.chunks(deltas))
    assert first["prompt_token_ids"] == [7, 8, 9]
    ids = [each["choices"][0].get("token_ids") for each in (first, second, last)]
    assert ids == [[1, 2], [3], None]
    counts = [each["usage"] for each in (first, second, last)]
    assert [(each["prompt_tokens"], each["completion_tokens"]) for each in counts] == [
        (3, 2),
        (3, 3),
        (3, 3),
    ]


def test_ids_of_many_choices_are_short() -> None:
    stream = writer(Endpoint.COMPLETIONS, num_choices=128)
    raw = stream.chunks([Delta(choice, "x" * 800, None) for choice in range(128)])
    raw += stream.chunks([Delta(choice, "x", STOP) for choice in range(128)])
    ids = [event.id or "" for event in sse_events(raw.decode())]
    assert len(ids[0]) == len("800-") + 8
    assert max(map(len, ids)) < 128 * len("800,") + 9


def test_an_error_ends_a_stream() -> None:
    error, done = sse_events(writer().failure(BROKEN).decode())
    assert (error.id, error.json) == ("end", job_error_body(BROKEN))
    assert done.data == "[DONE]"


def test_an_interrupted_stream_ends_with_the_last_id_and_without_done() -> None:
    stream = writer()
    (chunk,) = sse_events(stream.chunks([Delta(0, "x", None)]).decode())
    (last,) = sse_events(stream.interruption(BROKEN).decode())
    assert (last.id, last.retry, last.json) == (chunk.id, "1000", job_error_body(BROKEN))


def test_an_interrupted_stream_without_events_continues_at_its_start() -> None:
    (last,) = sse_events(StreamWriter(spec()).interruption(BROKEN).decode())
    assert last.id == "start.0"


def test_a_stream_that_is_interrupted_before_it_has_caught_up_keeps_its_id() -> None:
    (chunk,) = sse_events(writer().chunks([Delta(0, "abc", None)]).decode())
    again = continued(spec(), chunk.id)
    assert again.chunks([Delta(0, "a", None)]) == b""
    (last,) = sse_events(again.interruption(BROKEN).decode())
    assert last.id == chunk.id


def test_after_the_last_event_only_done_follows() -> None:
    again = continued(spec(include_usage=True), "end")
    assert again.chunks([Delta(0, "x", STOP)]) + again.closing(USAGE) == DONE
    assert continued(spec(), "end").failure(BROKEN) == DONE


@pytest.mark.parametrize(
    "deltas",
    [
        [Delta(0, "abX", None)],  # another text
        [Delta(0, "ab", STOP)],  # shorter
    ],
)
def test_an_answer_with_another_text_does_not_continue_a_stream(deltas: list[Delta]) -> None:
    (chunk,) = sse_events(writer().chunks([Delta(0, "abc", None)]).decode())
    with pytest.raises(Misplaced):
        continued(spec(), chunk.id).chunks(deltas)


def test_a_job_that_ends_before_the_position_does_not_continue_a_stream() -> None:
    (chunk,) = sse_events(writer().chunks([Delta(0, "abc", None)]).decode())
    again = continued(spec(), chunk.id)
    again.chunks([])
    with pytest.raises(Misplaced):
        again.closing(USAGE)


def continued(of: AnswerSpec, after: str | None) -> StreamWriter:
    return StreamWriter(of, parse_event_id(after or "", of, param="after"))


@dataclass(frozen=True)
class Answer:
    """One choice of an answer."""

    pieces: tuple[str, ...]
    finish: FinishReason
    prompt_logprobs: int


def logprob(number: int) -> PositionLogprobs:
    token = TokenLogprob(token=f"t{number}", logprob=-float(number), bytes=None)
    return PositionLogprobs(chosen=token, top=(), offset=number)


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


def uncut(of: AnswerSpec, deltas: Sequence[Delta], *, after: str | None = None) -> list[SseEvent]:
    """Return the events of a whole stream, or those after the event `after`."""
    stream = continued(of, after)
    raw = b"".join(stream.chunks([delta]) for delta in deltas) + stream.closing(USAGE)
    return sse_events(raw.decode())


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
    first, second, _ = whole = uncut(of, deltas)
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
    one = st.builds(
        Answer,
        st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(tuple),
        st.sampled_from([STOP, LENGTH]),
        st.sampled_from([0, 3]),
    )
    answers = [data.draw(one) for _ in range(of.num_choices)]
    whole = uncut(of, deltas_of(of, answers, data))
    expected = answer_in(whole)
    for count, event in enumerate(whole[:-1], 1):
        rest = uncut(of, deltas_of(of, answers, data), after=event.id)
        assert answer_in([*whole[:count], *rest]) == expected
    assert answer_in(uncut(of, deltas_of(of, answers, data), after="")) == expected


@given(specs(), st.data())
def test_a_stream_may_be_cut_again_and_again(of: AnswerSpec, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.sampled_from(FRAGMENTS), max_size=8))
    answers = [Answer(tuple(pieces), STOP, 0)] * of.num_choices
    expected = answer_in(uncut(of, deltas_of(of, answers, data)))
    client: list[SseEvent] = []
    while not client or client[-1].data != "[DONE]":
        after = client[-1].id if client else None
        rest = uncut(of, deltas_of(of, answers, data), after=after)
        client += rest[: data.draw(st.integers(1, len(rest)))]
    assert answer_in(client) == expected
