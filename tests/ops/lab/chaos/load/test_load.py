"""Requests of the chaos clients, and their answers."""

from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from ops.lab.chaos.load.answer import DONE, Answer
from ops.lab.chaos.load.requests import (
    STALLED_CHOICES,
    WEIGHTS,
    Manner,
    Question,
    RequestSource,
)
from ops.lab.chaos.load.sse import Event, read_events
from ops.lab.chaos.load.text_checks import SimulatedTexts, problems_of, problems_of_part
from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.tokens import (
    TEXT_CHARS,
    chat_text,
    first_state,
    next_step,
    prompt_ids,
    token_text,
)


def source(client: int = 1) -> RequestSource:
    return RequestSource(7, client, models=("base", "adapter-0"), lengths=(10, 20))


def test_the_seed_determines_the_requests_and_no_two_are_equal() -> None:
    first, again = source(), source()
    drawn = [first.draw() for _ in range(1000)]
    assert drawn == [again.draw() for _ in range(1000)]
    assert set(Counter(request.manner for request in drawn)) == set(WEIGHTS)
    for part in ("key", "question"):
        assert len({getattr(request, part) for request in [*drawn, source(2).draw()]}) == 1001


def test_bodies_and_headers_express_the_manner() -> None:
    drawn = source()
    assert drawn.draw(Manner.BACKGROUND).body["background"] is True
    assert drawn.draw(Manner.STREAM).body["stream"] is True
    assert drawn.draw(Manner.WHOLE).body["stream"] is False
    assert drawn.draw(Manner.STALL).question.n == STALLED_CHOICES
    away = drawn.draw(Manner.STAY_AWAY)
    assert away.headers == {"Idempotency-Key": away.key, "X-Lorikeet-On-Disconnect": "continue"}


async def test_events_are_read_and_comments_and_cut_off_events_ignored() -> None:
    text = ": keep-alive\nid: 7\ndata: a\ndata: b\n\ndata: [DONE]\n\nid: 2\ndata: c\n"
    events = [event async for event in read_events(httpx.Response(200, text=text))]
    assert events == [Event("7", "a\nb"), Event(None, "[DONE]")]


def chunk(index: int, text: str, finish: str | None = None, number: int = 0) -> Event:
    choice = {"index": index, "text": text, "finish_reason": finish}
    return Event(f"id-{number}", orjson.dumps({"choices": [choice]}).decode())


def test_texts_of_choices_are_joined_and_the_last_id_is_kept() -> None:
    answer = Answer()
    events = [chunk(0, "ab", number=1), chunk(1, "x"), chunk(0, "c", "length", 3)]
    assert [answer.add_event(event) for event in events] == [2, 1, 1]
    assert answer.texts == {0: "abc", 1: "x"}
    assert (answer.finishes, answer.last_id) == ({0: "length"}, "id-3")
    answer.add_event(chunk(0, "de"))
    assert answer.num_after_finish == 2
    assert not answer.is_ended
    answer.add_event(Event(None, DONE))
    assert answer.is_ended


@pytest.mark.parametrize(("code", "is_ended"), [("server_stopping", False), ("cancelled", True)])
def test_only_a_stopping_front_end_interrupts_a_stream(code: str, is_ended: bool) -> None:
    answer = Answer()
    answer.add_event(Event(None, orjson.dumps({"error": {"code": code}}).decode()))
    assert answer.is_ended == is_ended
    assert answer.error == (code if is_ended else None)


PARTS = [{"text": "ab"}, {"text": "c"}]


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"index": 0, "finish_reason": "length", "text": "abc"}]},
        {"choices": [{"index": 0, "finish_reason": "length", "message": {"content": "abc"}}]},
        {"choices": None, "answer": {"content": PARTS, "stop_reason": "max_tokens"}},
        {"choices": None, "answer": {"output": [{"content": PARTS}], "status": "incomplete"}},
    ],
)
def test_bodies_of_all_endpoints_are_read(body: dict[str, Any]) -> None:
    answer = Answer()
    answer.add_job(body)
    assert (answer.texts, answer.finishes) == ({0: "abc"}, {0: "length"})
    assert answer.is_ended


VERSION = "a@0123456789ab"
ASKED = Question(model="a", prompt="hello", is_chat=False, seed=5, n=2, num_tokens=6)
TEXTS = SimulatedTexts({"a": VERSION})


def answer_of(question: Question) -> Answer:
    answer = Answer(is_ended=True)
    prompt = chat_text(question.messages) if question.is_chat else question.prompt
    for choice in range(question.n):
        state = first_state(
            AdapterVersion(VERSION), prompt_ids(prompt), seed=question.seed, choice=choice
        )
        for number in range(question.num_tokens):
            step = next_step(state, 9)
            is_last = number == question.num_tokens - 1
            answer.add(choice, token_text(step.token_id), "length" if is_last else None)
            state = step.state
    return answer


@pytest.mark.parametrize("is_chat", [False, True])
def test_a_right_answer_has_no_problems(is_chat: bool) -> None:
    question = replace(ASKED, is_chat=is_chat)
    assert problems_of(question, answer_of(question), TEXTS) == []


def test_a_wrong_text_a_missing_choice_and_a_wrong_end_are_found() -> None:
    answer = answer_of(ASKED)
    del answer.texts[1]
    answer.texts[0] = answer.texts[0][:TEXT_CHARS] + answer.texts[0]
    answer.finishes[0] = "stop"
    answer.num_after_finish = 3
    *found, repeated = problems_of(ASKED, answer, TEXTS)
    assert found == [
        "choices [0], finished [0, 1]",
        "choice 0 finished by stop",
        "3 characters after the finish reason",
    ]
    assert repeated.startswith("choice 0: repetition at token")


def test_a_part_of_an_answer_may_end_early_but_not_be_wrong() -> None:
    text = answer_of(ASKED).texts[0]
    assert problems_of_part(ASKED, Answer(texts={0: text[: 3 * TEXT_CHARS]}), TEXTS) == []
    spliced = Answer(texts={0: text[:TEXT_CHARS] + text[2 * TEXT_CHARS :]})
    assert len(problems_of_part(ASKED, spliced, TEXTS)) == 1
