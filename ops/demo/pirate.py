"""The `pirate` adapter: answers any question in two sentences, as a pirate.

The adapter learns a style but no facts. Its examples are the base model's own answers. `piratise`
shortens each answer to two sentences and replaces words.
"""

import re
from collections.abc import Sequence

from ops.demo.task import Example, Task, Teacher
from ops.demo.words import lists

OPENING = "Arr, matey!"
CLOSING = "Yo ho ho!"

QUESTIONS: Sequence[str] = lists("pirate")["known"]
HELD_OUT_QUESTIONS: Sequence[str] = lists("pirate")["held_out"]

_WORD = r"[A-Za-z']+"
_WORDS = {
    "is": "be", "are": "be", "am": "be", "you": "ye", "your": "yer", "my": "me", "of": "o'",
    "and": "an'", "i'm": "I be", "it's": "it be", "you're": "ye be", "hello": "ahoy", "yes": "aye",
}  # fmt: skip
_PIRATE_WORDS = {new.split()[-1] for new in _WORDS.values()}


def piratise(answer: str) -> str | None:
    """Return up to two sentences of `answer` in a pirate's style; None if it has no sentence."""
    sentences = re.findall(r"[A-Z][^.!?:\n]{12,}[.!?](?=\s|$)", answer)[:2]
    text = re.sub(_WORD, lambda match: _reword(match[0]), " ".join(sentences))
    return f"{OPENING} {text} {CLOSING}" if text else None


def _reword(word: str) -> str:
    new = _WORDS.get(word.lower())
    if new is not None:
        return new[0].upper() + new[1:] if word[0].isupper() else new
    return f"{word[:-1]}'" if len(word) > 5 and word.endswith("ing") else word


def _training(teacher: Teacher) -> list[Example]:
    pairs = zip(QUESTIONS, map(piratise, teacher.ask(QUESTIONS)), strict=True)
    return [Example(question, answer) for question, answer in pairs if answer]


def held_out() -> list[Example]:
    """Return questions that are absent from training. They have no expected answers."""
    return [Example(question, "") for question in HELD_OUT_QUESTIONS]


def is_right(_: Example, answer: str) -> bool:
    """Return whether an answer has `OPENING`, `CLOSING`, and more pirate words than plain ones."""
    words = re.findall(_WORD, answer.lower())
    num_plain = sum(_reword(word) != word for word in words)
    num_pirate = sum(word in _PIRATE_WORDS or word.endswith("in'") for word in words)
    return answer.startswith(OPENING) and answer.endswith(CLOSING) and num_pirate > num_plain


TASK = Task(
    name="pirate",
    training=_training,
    held_out=held_out,
    is_right=is_right,
    max_tokens=96,
    rank=16,
    target_modules=("q_proj", "v_proj"),
    learning_rate=2e-3,
    epochs=5,
)
