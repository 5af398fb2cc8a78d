"""Answers are collected from events and bodies."""

from typing import Any

import orjson
import pytest

from ops.lab.chaos.load.answer import DONE, Answer
from ops.lab.chaos.load.sse import Event


def chunk(index: int, text: str, finish: str | None = None, number: int = 0) -> Event:
    choice = {"index": index, "text": text, "finish_reason": finish}
    return Event(f"id-{number}", orjson.dumps({"choices": [choice]}).decode())


def error(code: str) -> Event:
    return Event(None, orjson.dumps({"error": {"code": code, "message": "x"}}).decode())


def test_texts_of_choices_are_joined_and_the_last_id_is_kept() -> None:
    answer = Answer()
    events = [chunk(0, "ab", number=1), chunk(1, "x"), chunk(0, "c", "length", 3)]
    assert [answer.add_event(event) for event in events] == [2, 1, 1]
    assert answer.texts == {0: "abc", 1: "x"}
    assert answer.finishes == {0: "length"}
    assert answer.last_id == "id-3"
    assert not answer.is_ended
    answer.add_event(Event(None, DONE))
    assert answer.is_ended


def test_text_after_the_finish_reason_is_counted() -> None:
    answer = Answer()
    for event in (chunk(0, "ab", "length"), chunk(0, "cd")):
        answer.add_event(event)
    assert answer.num_after_finish == 2


@pytest.mark.parametrize(("code", "is_ended"), [("server_stopping", False), ("cancelled", True)])
def test_only_a_stopping_front_end_interrupts_a_stream(code: str, is_ended: bool) -> None:
    answer = Answer()
    answer.add_event(error(code))
    assert answer.is_ended == is_ended
    assert answer.error == (code if is_ended else None)


@pytest.mark.parametrize("form", [{"text": "abc"}, {"message": {"content": "abc"}}])
def test_bodies_of_both_endpoints_are_read(form: dict[str, Any]) -> None:
    answer = Answer()
    answer.add_body({"choices": [{"index": 0, "finish_reason": "length", **form}]})
    assert (answer.texts, answer.is_ended) == ({0: "abc"}, True)


@pytest.mark.parametrize(
    "viewed",
    [
        {"content": [{"text": "ab"}, {"text": "c"}], "stop_reason": "max_tokens"},
        {"output": [{"content": [{"text": "ab"}, {"text": "c"}]}], "status": "incomplete"},
    ],
)
def test_answers_of_jobs_have_the_format_of_their_endpoint(viewed: dict[str, Any]) -> None:
    answer = Answer()
    answer.add_job({"choices": None, "answer": viewed, "usage": None})
    assert (answer.texts, answer.finishes) == ({0: "abc"}, {0: "length"})
    assert answer.is_ended
