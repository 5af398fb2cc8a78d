"""The check of answers detects each way in which an answer can be wrong."""

from dataclasses import replace

import pytest

from ops.lab.chaos.load.answer import Answer
from ops.lab.chaos.load.requests import Question
from ops.lab.chaos.load.text_checks import (
    SimulatedTexts,
    problems_of,
    problems_of_part,
)
from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.tokens import (
    TEXT_CHARS,
    chat_text,
    first_state,
    next_step,
    prompt_ids,
    token_text,
)

VERSION = "a@0123456789ab"
QUESTION = Question(model="a", prompt="hello", is_chat=False, seed=5, n=2, num_tokens=6)
TEXTS = SimulatedTexts({"a": VERSION})


def text_of(question: Question, choice: int, *, epoch: int = 9) -> str:
    prompt = chat_text(question.messages) if question.is_chat else question.prompt
    state = first_state(
        AdapterVersion(VERSION), prompt_ids(prompt), seed=question.seed, choice=choice
    )
    text = ""
    for _ in range(question.num_tokens):
        step = next_step(state, epoch)
        text, state = text + token_text(step.token_id), step.state
    return text


def answer_of(question: Question = QUESTION) -> Answer:
    texts = {choice: text_of(question, choice) for choice in range(question.n)}
    return Answer(texts=texts, finishes=dict.fromkeys(texts, "length"), is_ended=True)


@pytest.mark.parametrize("is_chat", [False, True])
def test_a_right_answer_has_no_problems(is_chat: bool) -> None:
    question = replace(QUESTION, is_chat=is_chat)
    assert problems_of(question, answer_of(question), TEXTS) == []


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda text: text[:-TEXT_CHARS], "gap"),
        (lambda text: text[:TEXT_CHARS] + text[2 * TEXT_CHARS :], "gap"),
        (lambda text: text[:TEXT_CHARS] + text, "repetition"),
        (lambda text: text + text[:TEXT_CHARS], "excess"),
        (lambda text: text[:16] + text_of(QUESTION, 0, epoch=3)[16:], "splice"),
        (lambda text: "x" + text[1:], "malformed"),
    ],
)
def test_missing_repeated_and_foreign_tokens_are_found(edit, found: str) -> None:
    answer = answer_of()
    answer.texts[0] = edit(answer.texts[0])
    (problem,) = problems_of(QUESTION, answer, TEXTS)
    assert problem.startswith(f"choice 0: {found} at token")


def test_a_missing_choice_and_a_wrong_end_are_found() -> None:
    answer = answer_of()
    del answer.texts[1]
    answer.finishes[0] = "stop"
    answer.num_after_finish = 3
    assert problems_of(QUESTION, answer, TEXTS) == [
        "choices [0], finished [0, 1]",
        "choice 0 finished by stop",
        "3 characters after the finish reason",
    ]


def test_a_part_of_an_answer_may_end_early_but_not_be_wrong() -> None:
    text = text_of(QUESTION, 0)
    assert problems_of_part(QUESTION, Answer(texts={0: text[: 3 * TEXT_CHARS]}), TEXTS) == []
    spliced = Answer(texts={0: text[:TEXT_CHARS] + text[2 * TEXT_CHARS :]})
    assert len(problems_of_part(QUESTION, spliced, TEXTS)) == 1
