"""Checks whether an answer is exactly the one that its request must get."""

from collections.abc import Mapping
from typing import Protocol

from ops.chaos.load.answer import Answer
from ops.chaos.load.requests import Question
from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import chat_text, prompt_ids

FINISH = "length"
"""Finish reason of every whole answer, since requests ignore the end token."""


class TextCheck(Protocol):
    """Knows the texts that questions must get."""

    def problem(self, question: Question, choice: int, text: str, *, is_whole: bool) -> str | None:
        """Return what is wrong with the text of a choice, or None.

        If `is_whole` is false, the text may end early.
        """


class SimulatedTexts:
    """Recomputes the tokens of the simulated engine."""

    def __init__(self, versions: Mapping[str, str]) -> None:
        """Create the check of a pool that serves these versions, by model name."""
        self._versions = versions

    def problem(self, question: Question, choice: int, text: str, *, is_whole: bool) -> str | None:
        """Return what is wrong with the text of a choice, or None."""
        prompt = chat_text(question.messages) if question.is_chat else question.prompt
        verdict = check(
            text,
            version=AdapterVersion(self._versions[question.model]),
            prompt=prompt_ids(prompt),
            seed=question.seed,
            choice=choice,
            num_tokens=question.num_tokens if is_whole else None,
        )
        return str(verdict.violation) if verdict.violation else None


class ReferenceTexts:
    """Compares texts with those of an undisturbed pool."""

    def __init__(self, texts: Mapping[Question, Mapping[int, str]]) -> None:
        """Create the check from the text of each question's choices."""
        self._texts = texts

    def problem(self, question: Question, choice: int, text: str, *, is_whole: bool) -> str | None:
        """Return what is wrong with the text of a choice, or None."""
        expected = self._texts[question][choice]
        if text == expected or (not is_whole and expected.startswith(text)):
            return None
        same = next((i for i, (a, b) in enumerate(zip(text, expected)) if a != b), None)  # noqa: B905 -- lengths differ
        place = min(len(text), len(expected)) if same is None else same
        return f"differs from the undisturbed answer from character {place} on"


def problems_of(question: Question, answer: Answer, texts: TextCheck) -> list[str]:
    """Return everything that is wrong with a whole answer."""
    wanted = set(range(question.n))
    found = []
    if set(answer.texts) != wanted or set(answer.finishes) != wanted:
        found.append(f"choices {sorted(answer.texts)}, finished {sorted(answer.finishes)}")
    found += [f"choice {i} finished by {f}" for i, f in answer.finishes.items() if f != FINISH]
    if answer.num_after_finish:
        found.append(f"{answer.num_after_finish} characters after the finish reason")
    return found + _text_problems(question, answer, texts, is_whole=True)


def problems_of_part(question: Question, answer: Answer, texts: TextCheck) -> list[str]:
    """Return everything that is wrong with an answer that may end early."""
    return _text_problems(question, answer, texts, is_whole=False)


def _text_problems(
    question: Question, answer: Answer, texts: TextCheck, *, is_whole: bool
) -> list[str]:
    found = []
    for choice, text in answer.texts.items():
        if problem := texts.problem(question, choice, text, is_whole=is_whole):
            found.append(f"choice {choice}: {problem}")
    return found
