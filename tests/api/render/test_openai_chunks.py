"""Stream chunks and responses in OpenAI's format."""

from rendered_job import events, job, writer

from api.follow.transcript import Delta
from api.render.openai_chunks import ChatFormat, CompletionFormat
from shared.protocol.jobs import Endpoint
from shared.protocol.results import FinishReason, Usage


def test_ids_contain_the_endpoints_prefix_and_the_job_id() -> None:
    assert ChatFormat(job(), stream=True).id == "chatcmpl-a1"
    assert CompletionFormat(job()).id == "cmpl-a1"


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


def test_the_finish_reason_of_a_chat_choice_has_its_own_chunk() -> None:
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
