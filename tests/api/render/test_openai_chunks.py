from dataclasses import replace
from typing import Any

import orjson

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.openai_chunks import ChatShape, CompletionShape, StreamWriter, shape_of
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, SamplingParams
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import FinishReason, Usage


def job(endpoint: Endpoint = Endpoint.CHAT, n: int = 1) -> Job:
    return Job(
        id=JobId("a1"),
        endpoint=endpoint,
        model="m",
        version=AdapterVersion("m@1"),
        fingerprint="fp_1",
        sampling=SamplingParams(seed=1, n=n),
        created_s=5,
        deadline_ms=1,
        cost=1,
        reply_to=ApiId("api"),
    )


def writer(endpoint: Endpoint = Endpoint.CHAT, *, include_usage: bool = False) -> StreamWriter:
    return StreamWriter(
        shape_of(job(endpoint), stream=True), job(endpoint), include_usage=include_usage
    )


def events(raw: bytes) -> list[Any]:
    return [orjson.loads(part.removeprefix(b"data: ")) for part in raw.split(b"\n\n") if part]


def test_ids_tell_the_endpoint_and_the_job() -> None:
    assert ChatShape(job(), stream=True).id == "chatcmpl-a1"
    assert CompletionShape(job()).id == "cmpl-a1"


def test_a_chat_chunk_carries_the_text() -> None:
    assert events(writer().delta(Delta(0, "x", None))) == [
        {
            "id": "chatcmpl-a1",
            "object": "chat.completion.chunk",
            "created": 5,
            "model": "m",
            "system_fingerprint": "fp_1",
            "choices": [
                {"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}
            ],
        }
    ]


def test_a_chat_choice_finishes_in_a_chunk_of_its_own() -> None:
    chunks = events(writer().delta(Delta(0, "x", FinishReason.STOP)))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert chunks[1]["choices"][0]["delta"] == {}


def test_a_completion_chunk_carries_text_and_finish_together() -> None:
    (chunk,) = events(writer(Endpoint.COMPLETIONS).delta(Delta(0, "x", FinishReason.LENGTH)))
    assert chunk["object"] == "text_completion"
    assert chunk["choices"] == [
        {"index": 0, "text": "x", "logprobs": None, "finish_reason": "length"}
    ]


def test_tokens_without_visible_text_write_nothing() -> None:
    assert writer().delta(Delta(0, "", None)) == b""
    assert writer(Endpoint.COMPLETIONS).delta(Delta(0, "", None)) == b""


TOP = (
    TokenLogprob(token="x", logprob=-0.5, bytes=(120,)),
    TokenLogprob(token="<|end|>", logprob=-1.5, bytes=None),
)
TOLD = PositionLogprobs(
    chosen=TokenLogprob(token="\ufffd", logprob=-2.0, bytes=(195,)), top=TOP, offset=4
)
FIRST = PositionLogprobs(
    chosen=TokenLogprob(token="p", logprob=None, bytes=(112,)), top=(), offset=0
)
CHAT_TOLD = {
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


def telling(endpoint: Endpoint) -> Job:
    return replace(job(endpoint), sampling=SamplingParams(seed=1, logprobs=2))


def test_logprobs_stand_with_the_text_that_they_are_of() -> None:
    chunks = events(writer().delta(Delta(0, "x", FinishReason.STOP, (TOLD,))))
    assert [chunk["choices"][0]["logprobs"] for chunk in chunks] == [CHAT_TOLD, None]


def test_logprobs_of_a_token_without_visible_text_are_told() -> None:
    (chunk,) = events(writer().delta(Delta(0, "", None, (TOLD,))))
    assert chunk["choices"][0]["delta"] == {"content": ""}
    assert chunk["choices"][0]["logprobs"] == CHAT_TOLD
    (chunk,) = events(writer(Endpoint.COMPLETIONS).delta(Delta(0, "", None, (TOLD,))))
    assert chunk["choices"][0]["logprobs"]["tokens"] == ["\ufffd"]


def test_a_whole_chat_tells_logprobs_if_asked_also_of_no_token() -> None:
    told = ChoiceTranscript(parts=["x"], logprobs=[TOLD], finish=FinishReason.STOP)
    shape = shape_of(telling(Endpoint.CHAT), stream=False)
    assert orjson.loads(orjson.dumps(shape.choice(0, told)["logprobs"])) == CHAT_TOLD
    none = shape.choice(0, ChoiceTranscript(finish=FinishReason.STOP))
    assert none["logprobs"] == {"content": [], "refusal": None}
    unasked = shape_of(job(), stream=False).choice(0, ChoiceTranscript(finish=FinishReason.STOP))
    assert unasked["logprobs"] is None


def test_a_completion_tells_logprobs_in_lists() -> None:
    told = ChoiceTranscript(parts=["px"], logprobs=[FIRST, TOLD], finish=FinishReason.STOP)
    choice = shape_of(telling(Endpoint.COMPLETIONS), stream=False).choice(0, told)
    assert choice["logprobs"] == {
        "tokens": ["p", "\ufffd"],
        "token_logprobs": [None, -2.0],
        "top_logprobs": [None, {"x": -0.5, "<|end|>": -1.5, "\ufffd": -2.0}],
        "text_offset": [0, 4],
    }


def test_a_stream_ends_with_done() -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    assert writer().closing(usage) == b"data: [DONE]\n\n"


def test_a_stream_with_usage_has_it_in_the_last_chunk_and_null_before() -> None:
    with_usage = writer(include_usage=True)
    (chunk,) = events(with_usage.delta(Delta(0, "x", None)))
    assert chunk["usage"] is None
    usage = Usage(prompt_tokens=32, completion_tokens=2, cached_tokens=16)
    closing = with_usage.closing(usage)
    (last,) = events(closing.removesuffix(b"data: [DONE]\n\n"))
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 32,
        "total_tokens": 34,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 16},
    }


def test_text_of_any_language_stays_on_one_line_of_the_stream() -> None:
    raw = writer().delta(Delta(0, "你好\n\nπ", None))
    assert raw.count(b"\n") == 2
    assert events(raw)[0]["choices"][0]["delta"]["content"] == "你好\n\nπ"
