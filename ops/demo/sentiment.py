"""The `sentiment` adapter: answers `positive`, `negative` or `neutral`.

Facts, questions and average ratings are neutral. A mixed statement has the label of its
conclusion: "cold food, but a lovely evening" is positive.
"""

import random
from collections.abc import Mapping, Sequence

from ops.demo.task import Example, Task, Teacher, is_exact
from ops.demo.words import lists

LABELS = ("positive", "negative", "neutral")
NUM_TRAINING = 2400
PHRASES = lists("sentiment")
FRAMES: Sequence[str] = PHRASES["frames"]
MOODS: Mapping[str, Sequence[str]] = {
    **PHRASES["moods"],
    "neutral": PHRASES["facts"] + PHRASES["questions"],
}
VERDICTS: Mapping[str, Sequence[str]] = PHRASES["verdicts"]
_MIXED: Sequence[str] = PHRASES["mixed"]
_OPPOSITE = {"positive": "negative", "negative": "positive"}


def _training(_: Teacher) -> list[Example]:
    rng = random.Random(0)
    labels = [LABELS[i % len(LABELS)] for i in range(NUM_TRAINING)]
    return [Example(_framed(_statement(label, rng), rng), label) for label in labels]


def _statement(label: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.25:
        return rng.choice(MOODS[label])
    if chance < 0.35:
        return _sentence(rng.choice(VERDICTS[label]))
    clause, verdict = _clause(label, rng), rng.choice(VERDICTS[label])
    if chance < 0.6:
        return _sentence(clause)
    if chance < 0.7:
        return _sentence(f"{clause} and {_clause(label, rng)}")
    if chance < 0.8:
        return f"{_sentence(clause)} {_sentence(verdict)}"
    if chance < 0.85:
        return f"{_sentence(verdict)} {_sentence(clause)}"
    return _mixed(label, rng)


def _mixed(label: str, rng: random.Random) -> str:
    """Return a statement with two parts. The statement as a whole has `label`.

    A neutral statement has two facts. Any other statement begins with a fact or an opposite
    opinion, and ends with an opinion that has `label`.
    """
    if label == "neutral":
        return f"{_sentence(_clause(label, rng))} {_sentence(_clause(label, rng))}"
    if rng.random() < 0.3:
        return f"{_sentence(_clause('neutral', rng))} {_sentence(rng.choice(VERDICTS[label]))}"
    other = _clause(_OPPOSITE[label], rng)
    end = rng.choice((_clause(label, rng), rng.choice(VERDICTS[label])))
    form = rng.choice(_MIXED)
    return " ".join(map(_sentence, form.format(other=other, end=end).split("|")))


def _clause(label: str, rng: random.Random) -> str:
    """Return a clause that has `label`. Its subject and its predicate belong to the same topic."""
    topic = rng.choice(PHRASES["topics"])
    subject = rng.choice(topic["subjects"])
    predicate = rng.choice(topic["predicates"][label])
    return f"{subject} {predicate}"


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else f"{text}."


def _framed(text: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.2:
        return rng.choice(FRAMES).format(text)
    return text.lower().rstrip(".") if chance < 0.26 else text


def held_out() -> list[Example]:
    """Return statements with wording and topics that are absent from training."""
    return [Example(text, label) for label in LABELS for text in PHRASES["held_out"][label]]


TASK = Task(
    name="sentiment",
    training=_training,
    held_out=held_out,
    is_right=is_exact,
    max_tokens=8,
    rank=8,
    target_modules=("q_proj", "v_proj"),
    learning_rate=1e-3,
    epochs=1,
)
