"""Streams of typed events, and streams that continue after any of their events."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendered_job import spec
from sse_events import SseEvent, sse_events
from typed_events import folded

from api.follow.transcript import ChoiceTranscript, Delta
from api.formats import position_after, stream_of, whole_body
from api.render.catch_up import Misplaced
from api.render.typed_stream import After
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import View
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import FinishReason, Usage
from shared.protocol.tools import ToolForm, ToolUse
from shared.reasoning_form import ReasoningForm

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
USAGE = Usage(prompt_tokens=32, completion_tokens=2, cached_tokens=16)
BROKEN = JobError(code=ErrorCode.INTERNAL, message="broken")
TOOLS = ({"type": "function", "function": {"name": "add"}},)
FRAGMENTS = (
    *("<tool_call>", "</tool_call>", "<tool_c", "\n", " ", "{", "}", "text", "é🙂"),
    *("<think>", "</think>", '{"name": "add", "arguments": {"a": 1}}'),
    '{"name": "none", "arguments": {}}',
    '<tool_call>\n{"name": "add", "arguments": {"a": [1, {"b": "\\""}]}}\n</tool_call>',
)
VIEWS = (View.RESPONSES, View.MESSAGES)


def viewed(view: View, *, has_tools: bool = True, **fields: object) -> AnswerSpec:
    tools = ToolUse(tools=TOOLS, form=ToolForm.HERMES) if has_tools else None
    return spec(view=view, tools=tools, request={"stop_sequences": ["!!"]}, **fields)


def rendered(of: AnswerSpec, deltas: Sequence[Delta], after: str = "") -> list[SseEvent]:
    """Return the events after the event `after`."""
    stream = stream_of(of, position_after(after, of, param="after"))
    raw = b"".join(stream.chunks([delta]) for delta in deltas) + stream.closing(USAGE)
    return sse_events(raw.decode())


def divided(text: str, finish: FinishReason, cuts: Sequence[int]) -> list[Delta]:
    """Return the text as deltas that end at `cuts`. Each character is a token."""
    ends = [*sorted(cut for cut in cuts if cut < len(text)), len(text)]
    starts = [0, *ends[:-1]]
    return [
        Delta(0, text[a:b], finish if b == len(text) else None, tuple(map(_logprob, range(a, b))))
        for a, b in zip(starts, ends, strict=True)
        if a < b or b == len(text)
    ]


def _logprob(offset: int) -> PositionLogprobs:
    token = TokenLogprob(token=f"t{offset}", logprob=-float(offset), bytes=None)
    return PositionLogprobs(chosen=token, top=(), offset=offset)


SPECS = st.builds(
    viewed,
    st.sampled_from(VIEWS),
    has_tools=st.booleans(),
    has_logprobs=st.booleans(),
    reasoning=st.sampled_from([None, ReasoningForm.THINK]),
)
TEXTS = st.lists(st.sampled_from((*FRAGMENTS, "!!")), max_size=8).map("".join)
CUTS = st.lists(st.integers(1, 200), max_size=6)


@given(SPECS, TEXTS, st.sampled_from([STOP, LENGTH]), CUTS, CUTS)
def test_a_stream_that_continues_after_any_event_has_exactly_the_rest(
    of: AnswerSpec, text: str, finish: FinishReason, cuts: list[int], others: list[int]
) -> None:
    text = text.replace("!!", "") + ("!!" if text.endswith("!!") else "")
    # A worker publishes a stop sequence in one piece.
    safe = [cut for cut in cuts if cut <= len(text.removesuffix("!!"))]
    again = [cut for cut in others if cut <= len(text.removesuffix("!!"))]
    whole = rendered(of, divided(text, finish, safe))
    expected = folded(whole)
    for count, event in enumerate(whole, 1):
        rest = rendered(of, divided(text, finish, again), event.id or "")
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


@pytest.mark.parametrize("view", VIEWS)
def test_a_number_alone_is_a_position(view: View) -> None:
    of = viewed(view)
    whole = rendered(of, divided("one two three", STOP, [3, 7]))
    for count, event in enumerate(whole):
        stream = stream_of(of, After(int((event.id or "").partition("-")[0])))
        raw = stream.chunks(divided("one two three", STOP, [5])) + stream.closing(USAGE)
        assert folded([*whole[: count + 1], *sse_events(raw.decode())]) == folded(whole)


@pytest.mark.parametrize("view", VIEWS)
def test_an_error_is_the_last_event_and_comes_once(view: View) -> None:
    of = viewed(view)
    stream = stream_of(of)
    *_, error = sse_events(
        (stream.chunks([Delta(0, "one", None)]) + stream.failure(BROKEN)).decode()
    )
    assert error.id == "end"
    assert "broken" in error.data
    assert error.event == ("response.failed" if view is View.RESPONSES else "error")
    again = stream_of(of, position_after("end", of, param="after"))
    assert again.chunks([Delta(0, "one", None)]) + again.failure(BROKEN) == b""


@pytest.mark.parametrize("view", VIEWS)
def test_an_interrupted_stream_continues_after_its_last_event(view: View) -> None:
    of = viewed(view)
    stream = stream_of(of)
    events = sse_events(stream.chunks([Delta(0, "one", None)]).decode())
    (last,) = sse_events(stream.interruption(BROKEN).decode())
    assert (last.event, last.id, last.retry) == ("error", events[-1].id, "1000")
    rest = rendered(of, divided("one two", STOP, []), last.id or "")
    assert folded([*events, *rest]) == folded(rendered(of, divided("one two", STOP, [])))


@pytest.mark.parametrize("view", VIEWS)
def test_an_answer_with_another_text_does_not_continue_a_stream(view: View) -> None:
    of = viewed(view)
    *_, last = sse_events(stream_of(of).chunks([Delta(0, "abc", None)]).decode())
    for other in ([Delta(0, "abX", None)], [Delta(0, "ab", STOP)]):
        with pytest.raises(Misplaced):
            stream_of(of, position_after(last.id or "", of, param="after")).chunks(other)
    short = stream_of(of, position_after(last.id or "", of, param="after"))
    short.chunks([Delta(0, "a", None)])
    with pytest.raises(Misplaced):
        short.closing(USAGE)


@pytest.mark.parametrize(
    "bad", ["x", "1", "1-123", "-1-00000000", "1" * 16 + "-00000000", "start.1"]
)
def test_a_malformed_id_is_refused(bad: str) -> None:
    with pytest.raises(JobFailed, match="isn't the id of an event"):
        position_after(bad, viewed(View.RESPONSES), param="after")
