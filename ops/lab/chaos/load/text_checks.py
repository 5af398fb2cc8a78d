"""Checks whether an answer is exactly the one that its request must get."""

from collections.abc import Mapping

from ops.lab.chaos.load.answer import Answer
from ops.lab.chaos.load.requests import Question
from shared.protocol.ids import AdapterVersion
from worker.engine_simulated.checker import check
from worker.engine_simulated.tokens import chat_text, prompt_ids

FINISH = "length"
"""Finish reason of every whole answer, since requests ignore the end token."""


class SimulatedTexts:
    """Checks answers by recomputing the tokens of the simulated engine."""

    def __init__(self, versions: Mapping[str, str]) -> None:
        """Create a checker. `versions` maps each model to the version that the pool serves."""
        self._versions = versions

    def problem(self, question: Question, choice: int, text: str, *, is_whole: bool) -> str | None:
        """Return a description of the first fault in the text of a choice; None if it is right.

        If `is_whole` is false, the text may end early.
        """
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


def problems_of(question: Question, answer: Answer, texts: SimulatedTexts) -> list[str]:
    """Return descriptions of all faults in a whole answer; none if it is right."""
    wanted = set(range(question.n))
    found = []
    if set(answer.texts) != wanted or set(answer.finishes) != wanted:
        found.append(f"choices {sorted(answer.texts)}, finished {sorted(answer.finishes)}")
    found += [f"choice {i} finished by {f}" for i, f in answer.finishes.items() if f != FINISH]
    if answer.num_after_finish:
        found.append(f"{answer.num_after_finish} characters after the finish reason")
    return found + _text_problems(question, answer, texts, is_whole=True)


def problems_of_part(question: Question, answer: Answer, texts: SimulatedTexts) -> list[str]:
    """Return descriptions of all faults in an answer that may end early; none if it is right."""
    return _text_problems(question, answer, texts, is_whole=False)


def _text_problems(
    question: Question, answer: Answer, texts: SimulatedTexts, *, is_whole: bool
) -> list[str]:
    found = []
    for choice, text in answer.texts.items():
        if problem := texts.problem(question, choice, text, is_whole=is_whole):
            found.append(f"choice {choice}: {problem}")
    return found
