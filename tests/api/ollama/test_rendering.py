"""Answers of Ollama's API, whole and as streams, in any pieces and cut anywhere."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest
from families import FAMILIES, Family
from hypothesis import given
from hypothesis import strategies as st
from jiter import from_json
from json_lines import joined, json_lines
from rendered_job import spec
from written_calls import Call, use, written

from api.follow.transcript import ChoiceTranscript, Delta
from api.formats import position_after, stream_of, whole_body
from api.ollama.body import Kind, request_of
from api.render.durations import Durations
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import Endpoint, View
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.parameter_types import rendered_tools
from shared.protocol.results import Choice, FinishReason, Usage

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
NESTED: Call = (
    "get_weather",
    {"city": 'Zürich "東京" 🙂\n\\', "days": -2, "area": {"k": {"l": True}}, "tags": ["a]", "})"]},
)
SIMPLE: Call = ("get", {})
USAGE = Usage(prompt_tokens=32, completion_tokens=2, cached_tokens=16)
BROKEN = JobError(code=ErrorCode.INTERNAL, message="broken")
TOOK = Durations(total_s=2.5, load_s=0.5, prompt_s=0.25, output_s=1.75)
END = {"done": True, "done_reason": "stop", "prompt_eval_count": 32, "eval_count": 2}
TIMES = {
    "total_duration": 2_500_000_000,
    "load_duration": 500_000_000,
    "prompt_eval_duration": 250_000_000,
    "eval_duration": 1_750_000_000,
}
HEAD = {"model": "sql:latest", "created_at": "1970-01-01T00:00:05Z"}
"""The job of `rendered_job` is from the fifth second."""


def viewed(kind: Kind = Kind.CHAT, family: Family | None = None, **fields: Any) -> AnswerSpec:
    if family:
        fields |= {"tools": rendered_tools(use(family.form)), "reasoning": family.reasoning}
    return spec(view=View.OLLAMA, request=request_of(kind, "sql:latest"), **fields)


def whole(of: AnswerSpec, text: str, finish: FinishReason = STOP, **fields: Any) -> dict[str, Any]:
    choice = ChoiceTranscript.of(Choice(text=text, finish=finish, ids=(1,), **fields))
    return whole_body(of, [choice], USAGE)


def lines(of: AnswerSpec, pieces: Iterable[str], finish: FinishReason = STOP) -> Any:
    stream = stream_of(of)
    raw = b"".join(stream.chunks([Delta(0, piece, None)]) for piece in pieces)
    return json_lines(
        (raw + stream.chunks([Delta(0, "", finish)]) + stream.closing(USAGE)).decode()
    )


def test_a_chat_ends_with_counts_and_measured_durations() -> None:
    choice = ChoiceTranscript.of(Choice(text="hello", finish=STOP, ids=(1,)))
    message = {"message": {"role": "assistant", "content": "hello"}}
    body = whole_body(viewed(), [choice], USAGE, TOOK)
    assert body == {**HEAD, **message, **END, **TIMES}
    assert list(body)[:4] == ["model", "created_at", "message", "done"]


def test_a_duration_that_was_not_measured_is_left_out() -> None:
    choice = ChoiceTranscript.of(Choice(text="hello", finish=STOP, ids=(1,)))
    body = whole_body(viewed(Kind.GENERATE), [choice], USAGE, Durations(total_s=2.5, load_s=0.0))
    total = {"total_duration": TIMES["total_duration"]}
    assert body == {**HEAD, "response": "hello", **END, **total}
    assert whole(viewed(Kind.GENERATE), "hello") == {**HEAD, "response": "hello", **END}


def test_a_stream_has_an_object_on_each_line_and_ends_with_the_durations() -> None:
    stream = stream_of(viewed(), None, lambda: TOOK)
    raw = stream.chunks([]) + stream.chunks([Delta(0, "Hel", None), Delta(0, "lo", None)])
    raw += stream.chunks([Delta(0, "!", STOP)]) + stream.closing(USAGE)
    *parts, end = json_lines(raw.decode())
    messages = [{"role": "assistant", "content": text} for text in ("Hello", "!", "")]
    assert parts == [{**HEAD, "message": each, "done": False} for each in messages[:2]]
    assert end == {**HEAD, "message": messages[2], **END, **TIMES}


@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.GENERATE])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_stream_has_the_same_content_as_the_whole_answer(family: Family, kind: Kind) -> None:
    of, text = viewed(kind, family), family.answer("Hm é.", "", [NESTED, SIMPLE])
    answer = whole(of, text)
    for pieces in ((text,), text, [text[:9], text[9:]]):
        assert joined(lines(of, pieces)) == answer
    thinking = answer["message"] if kind is Kind.CHAT else answer
    assert thinking["thinking"] == "Hm é."
    if kind is Kind.CHAT:
        functions = [call["function"] for call in answer["message"]["tool_calls"]]
        assert [(f["index"], f["name"], f["arguments"]) for f in functions] == [
            (0, *NESTED),
            (1, *SIMPLE),
        ]


FRAGMENTS = (
    *("<think>", "</think>", "\n", " ", "é🙂", "text", "{", "}"),
    *("<tool_call>", "</tool_call>", '{"name": "get_weather", "arguments": {}}', "[TOOL_CALLS]"),
)


@given(st.sampled_from(FAMILIES), st.data())
def test_any_text_is_rendered_alike_in_any_pieces(family: Family, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(FRAGMENTS), max_size=8)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces: Sequence[str] = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    of = viewed(Kind.CHAT, family)
    for finish in (STOP, LENGTH):
        assert joined(lines(of, pieces, finish)) == whole(of, text, finish)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_call_that_the_token_limit_cuts_has_its_complete_arguments(family: Family) -> None:
    good = written(family.form, [NESTED])
    of_chat = spec(tools=rendered_tools(use(family.form)), reasoning=family.reasoning)
    for length in range(1, len(good)):
        text = family.answer("Hm.", raw=good[:length])
        answer = whole(viewed(Kind.CHAT, family), text, LENGTH)
        message, chat = answer["message"], whole(of_chat, text, LENGTH)["choices"][0]["message"]
        calls = [call["function"]["arguments"] for call in chat["tool_calls"] or ()]
        expected = [from_json((call or "{}").encode(), partial_mode=True) for call in calls]
        assert [c["function"]["arguments"] for c in message.get("tool_calls", ())] == expected
        assert (message["content"], message["thinking"]) == ("", "Hm.")
        assert answer["done_reason"] == "length"
        assert joined(lines(viewed(Kind.CHAT, family), [text], LENGTH)) == answer


def test_text_has_the_log_probabilities_of_its_tokens() -> None:
    def position(number: int, text: str) -> PositionLogprobs:
        token = TokenLogprob(token=text, logprob=-float(number), bytes=tuple(text.encode()))
        return PositionLogprobs(chosen=token, top=(token,), offset=number)

    positions = (position(0, "a"), position(1, "b"))
    of = viewed(has_logprobs=True)
    stream = stream_of(of)
    raw = stream.chunks([Delta(0, "a", None, positions[:1])])
    raw += stream.chunks([Delta(0, "b", STOP, positions[1:])]) + stream.closing(USAGE)
    answer = orjson.loads(orjson.dumps(whole(of, "ab", logprobs=positions)))
    assert joined(json_lines(raw.decode())) == answer
    first = {"token": "a", "logprob": -0.0, "bytes": [97]}
    assert answer["logprobs"][0] == {**first, "top_logprobs": [first]}
    assert len(answer["logprobs"]) == 2


@pytest.mark.parametrize("ended_by", ["failure", "interruption"])
def test_an_error_is_the_last_line_of_a_stream(ended_by: str) -> None:
    stream = stream_of(viewed())
    raw = stream.chunks([Delta(0, "one", None)]) + getattr(stream, ended_by)(BROKEN)
    _, last = json_lines(raw.decode())
    assert last == {"error": "broken", "code": "internal_error", "param": None}


def test_whitespace_keeps_a_stream_alive_and_clients_skip_it() -> None:
    stream = stream_of(viewed())
    assert stream.idle is not None
    raw = stream.idle * 3 + stream.chunks([Delta(0, "one", None)]) + stream.idle
    raw += stream.chunks([Delta(0, "", STOP)]) + stream.closing(USAGE)
    assert [line["message"]["content"] for line in json_lines(raw.decode())] == ["one", ""]


def test_a_stream_can_only_start_at_its_beginning() -> None:
    assert stream_of(viewed(), position_after("", viewed(), param="after")).chunks([]) == b""
    with pytest.raises(JobFailed, match="no event ids"):
        position_after("5-00000000", viewed(), param="after")


def test_embeddings() -> None:
    texts = ("AACAPwAAAAA=", "AAAAAAAAgD8=")  # base64 of float32
    choices = [ChoiceTranscript.of(Choice(text=text, finish=STOP, ids=())) for text in texts]
    many = viewed(Kind.EMBED, endpoint=Endpoint.EMBEDDINGS, num_choices=2)
    counts = {"prompt_eval_count": 32}
    times = {name: TIMES[name] for name in ("total_duration", "load_duration")}
    assert whole_body(many, choices, USAGE, TOOK) == {
        "model": "sql:latest",
        "embeddings": [[1.0, 0.0], [0.0, 1.0]],
        **times,
        **counts,
    }
    one = viewed(Kind.EMBEDDINGS, endpoint=Endpoint.EMBEDDINGS)
    assert whole_body(one, choices[:1], USAGE, TOOK) == {"embedding": [1.0, 0.0]}
