"""Log-probabilities in OpenAI's format."""

from typing import Any

import orjson
from rendered_job import events, spec, writer

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.openai_chunks import complete_body, format_of
from shared.protocol.jobs import Endpoint
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import FinishReason, Usage

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
    usage = Usage(prompt_tokens=3, completion_tokens=4)
    body = parsed(complete_body(spec(Endpoint.COMPLETIONS, has_prompt_scores=True), choices, usage))
    assert [each["prompt_logprobs"] for each in body["choices"]] == 2 * [rendered] + 2 * [[None]]
    chat = parsed(complete_body(spec(has_prompt_scores=True), choices[:2], usage))
    assert chat["prompt_logprobs"] == rendered
    assert "prompt_logprobs" not in chat["choices"][0]
    plain = complete_body(spec(), choices[:1], usage)
    assert "prompt_logprobs" not in plain
