"""Bodies and choices in OpenAI's format."""

from rendered_job import events, spec, writer

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.openai_chunks import complete_body
from shared.protocol.jobs import Endpoint
from shared.protocol.results import Choice, FinishReason, Usage

USAGE = Usage(prompt_tokens=32, completion_tokens=2, cached_tokens=16)
USAGE_BODY = {
    "prompt_tokens": 32,
    "total_tokens": 34,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 16},
}
STORED = Choice(text="x", finish=FinishReason.STOP, ids=(1, 2))


def test_a_body_is_rendered_from_the_specification_and_a_stored_result() -> None:
    body = complete_body(spec(), [ChoiceTranscript.of(STORED)], USAGE)
    assert body == {
        "id": "chatcmpl-a1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp_1",
        "weight_version": spec().version,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "x", "tool_calls": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE_BODY,
    }


def test_bodies_and_chunks_repeat_the_service_tier() -> None:
    body = complete_body(spec(service_tier="flex"), [ChoiceTranscript.of(STORED)], USAGE)
    assert body["service_tier"] == "flex"
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


def test_the_finish_reason_of_a_chat_choice_has_its_own_chunk() -> None:
    chunks = events(writer().chunks([Delta(0, "x", FinishReason.STOP)]))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert chunks[1]["choices"][0]["delta"] == {}


def test_a_completion_chunk_carries_text_and_finish_together() -> None:
    (chunk,) = events(writer(Endpoint.COMPLETIONS).chunks([Delta(0, "x", FinishReason.LENGTH)]))
    assert chunk["object"] == "text_completion"
    assert chunk["choices"] == [
        {"index": 0, "text": "x", "logprobs": None, "finish_reason": "length"}
    ]


def test_tokens_without_visible_text_write_nothing() -> None:
    assert writer().chunks([Delta(0, "", None)]) == b""
    assert writer(Endpoint.COMPLETIONS).chunks([Delta(0, "", None)]) == b""
