"""Bodies, chunks and log-probabilities in OpenAI's format."""

from typing import Any

import orjson
from rendered_job import events, spec, writer

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.openai_chunks import complete_body, format_of
from shared.protocol.jobs import Endpoint
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason, Usage

USAGE = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2)
STORED = Choice(text="x", finish=FinishReason.STOP, ids=(1, 2))


def test_bodies_and_chunks_have_the_service_tier_and_bodies_the_cached_tokens() -> None:
    body = complete_body(spec(service_tier="flex"), [ChoiceTranscript.of(STORED)], USAGE)
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
    chunks = events(writer(has_logprobs=True).chunks([Delta(0, "x", FinishReason.STOP, (SECOND,))]))
    assert [chunk["choices"][0]["logprobs"] for chunk in chunks] == [CHAT_SECOND, None]


def test_a_token_without_visible_text_has_logprobs() -> None:
    (chunk,) = events(writer(has_logprobs=True).chunks([Delta(0, "", None, (SECOND,))]))
    assert chunk["choices"][0]["delta"] == {"content": ""}
    assert chunk["choices"][0]["logprobs"] == CHAT_SECOND
    (chunk,) = events(
        writer(Endpoint.COMPLETIONS, has_logprobs=True).chunks([Delta(0, "", None, (SECOND,))])
    )
    assert chunk["choices"][0]["logprobs"]["tokens"] == ["\ufffd"]


def test_a_complete_chat_has_logprobs_if_requested_even_without_tokens() -> None:
    transcript = ChoiceTranscript(parts=["x"], logprobs=[SECOND], finish=FinishReason.STOP)
    answer_format = format_of(spec(has_logprobs=True), stream=False)
    assert (
        orjson.loads(orjson.dumps(answer_format.choice(0, transcript)["logprobs"])) == CHAT_SECOND
    )
    empty = answer_format.choice(0, ChoiceTranscript(finish=FinishReason.STOP))
    assert empty["logprobs"] == {"content": [], "refusal": None}
    unrequested = format_of(spec(), stream=False).choice(
        0, ChoiceTranscript(finish=FinishReason.STOP)
    )
    assert unrequested["logprobs"] is None


def test_a_completion_has_its_logprobs_in_lists() -> None:
    transcript = ChoiceTranscript(parts=["px"], logprobs=[FIRST, SECOND], finish=FinishReason.STOP)
    choice = format_of(spec(Endpoint.COMPLETIONS, has_logprobs=True), stream=False).choice(
        0, transcript
    )
    assert choice["logprobs"] == {
        "tokens": ["p", "\ufffd"],
        "token_logprobs": [None, -2.0],
        "top_logprobs": [None, {"x": -0.5, "<|end|>": -1.5, "\ufffd": -2.0}],
        "text_offset": [0, 4],
    }


def parsed(body: Any) -> Any:
    return orjson.loads(orjson.dumps(body))


def test_scores_of_a_prompt_are_at_each_of_its_choices_or_once_in_a_chat() -> None:
    rendered = [None, {"5": {"logprob": -0.5, "rank": 2, "decoded_token": "x"}}]
    one, single = orjson.dumps(rendered).decode(), "[null]"
    choices = [
        ChoiceTranscript(parts=["a"], finish=FinishReason.STOP, prompt_scores=scores)
        for scores in (one, "", single, "")
    ]
    body = parsed(complete_body(spec(Endpoint.COMPLETIONS, has_prompt_scores=True), choices, USAGE))
    assert [each["prompt_logprobs"] for each in body["choices"]] == 2 * [rendered] + 2 * [[None]]
    chat = parsed(complete_body(spec(has_prompt_scores=True), choices[:2], USAGE))
    assert chat["prompt_logprobs"] == rendered
    assert "prompt_logprobs" not in chat["choices"][0]
    plain = complete_body(spec(), choices[:1], USAGE)
    assert "prompt_logprobs" not in plain
