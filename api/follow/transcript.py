"""The tokens and text that the client of one job has received. Pure.

A job may be run by several workers, one after another. Each run is a *try*, and every event has the
number of its try.
"""

from dataclasses import dataclass, field, replace

from shared.protocol.events import Event, Retry, Tokens
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import Choice, FinishReason, Result


class Diverged(Exception):
    """An event contradicts a token that the client has already received at the same index."""


@dataclass(frozen=True, slots=True)
class Delta:
    """New output of one choice. The text may be empty, because text can lag behind tokens."""

    choice: int
    text: str
    finish: FinishReason | None
    logprobs: tuple[PositionLogprobs, ...] = ()
    """Log-probabilities of the new tokens. The first delta also has those of an echoed prompt."""
    ids: tuple[int, ...] = ()
    """Ids of the new tokens. Empty unless the answer needs them."""
    prompt_ids: tuple[int, ...] = ()
    """Ids of the prompt's tokens. Of a choice's deltas, only the first one that has `ids` contains
    them. If the choice has no tokens, its only delta contains them."""
    stop: str | int | None = None
    """What ended the choice, in the form of `Tokens.stop`."""


@dataclass(slots=True)
class ChoiceTranscript:
    """Tokens and text of one choice."""

    ids: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    """Pieces of the text, as they arrived."""
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    """Log-probabilities of the echoed prompt, if any, and then of the tokens in `ids`."""
    num_chars: int = 0
    finish: FinishReason | None = None
    stop: str | int | None = None
    """What ended the choice, in the form of `Tokens.stop`."""
    prompt_ids: tuple[int, ...] = ()
    """Ids of the prompt's tokens, if the answer needs them."""
    prompt_scores: str = ""
    """Scores of the prompt's tokens, in the form of `Tokens.prompt_scores`."""

    @classmethod
    def of(cls, choice: Choice) -> "ChoiceTranscript":
        """Return the transcript of a choice in a stored result."""
        return cls(
            ids=list(choice.ids),
            parts=[choice.text],
            logprobs=[*choice.prompt_logprobs, *choice.logprobs],
            num_chars=len(choice.text),
            finish=choice.finish,
            stop=choice.stop,
            prompt_ids=choice.prompt_ids,
            prompt_scores=choice.prompt_scores,
        )

    @property
    def text(self) -> str:
        """The complete text so far."""
        return "".join(self.parts)

    def append(self, delta: Delta) -> None:
        """Add the output in `delta`, without the ids of its tokens."""
        self.parts.append(delta.text)
        self.logprobs += delta.logprobs
        self.num_chars += len(delta.text)
        self.finish, self.stop = delta.finish, delta.stop


class Transcript:
    """Accepts each token of a job once. A token is identified by its choice and its index."""

    def __init__(self, num_choices: int, *, has_ids: bool = False) -> None:
        """Create an empty transcript. `has_ids` states whether its deltas have the token ids."""
        self._has_ids = has_ids
        self.choices = [ChoiceTranscript() for _ in range(num_choices)]
        self._min_try = 0

    @property
    def is_complete(self) -> bool:
        """Whether every choice has finished."""
        return all(choice.finish is not None for choice in self.choices)

    @property
    def num_tokens(self) -> int:
        """Number of output tokens of all choices."""
        return sum(len(choice.ids) for choice in self.choices)

    def is_void(self, event: Event) -> bool:
        """Return whether `event` belongs to a try that is over."""
        return event.try_ < self._min_try

    def void(self, retry: Retry) -> None:
        """Record that the try of `retry` and all earlier tries are over."""
        self._min_try = max(self._min_try, retry.try_ + 1)

    def can_accept(self, event: Tokens) -> bool:
        """Return whether `event` can be appended.

        If tokens before an event are missing, it can't be appended. If only some of its tokens are
        new, it can't be appended either, because its text can't be split into an old and a new
        part. An event that starts at index 0 has the complete text so far, so it can always be
        appended.
        """
        num_known = len(self.choices[event.choice].ids)
        has_no_new_tokens = event.index + len(event.ids) <= num_known
        is_next = event.index in (0, num_known)
        return is_next or (event.index < num_known and has_no_new_tokens)

    def accept(self, event: Tokens) -> Delta | None:
        """Append the new part of `event` and return it, or return None if nothing is new.

        Raises:
            Diverged: a token differs from the known token at the same index.
        """
        self._min_try = max(self._min_try, event.try_)
        known = self.choices[event.choice]
        overlap = known.ids[event.index : event.index + len(event.ids)]
        if overlap and tuple(overlap) != event.ids[: len(overlap)]:
            raise Diverged(f"choice {event.choice}, index {event.index}")
        if event.index == 0 and known.ids:
            text = event.text[known.num_chars :]  # the event has the complete text so far
        elif event.index == len(known.ids):
            text = event.text
        else:
            text = ""
        return self._append(event, text, num_known=len(overlap))

    def _append(self, event: Tokens, text: str, *, num_known: int) -> Delta | None:
        known, ids = self.choices[event.choice], event.ids[num_known:]
        if known.finish is not None or not (text or ids or event.finish):
            return None
        logprobs = event.logprobs[num_known:]
        if not known.ids:
            logprobs = event.prompt_logprobs + logprobs
            known.prompt_scores = event.prompt_scores
        delta = Delta(event.choice, text, event.finish, logprobs, stop=event.stop)
        if self._has_ids:
            known.prompt_ids = known.prompt_ids or event.prompt_ids
            is_first = not known.ids and bool(ids or event.finish)
            delta = replace(delta, ids=ids, prompt_ids=known.prompt_ids if is_first else ())
        known.ids += ids
        known.append(delta)
        return delta


def result_events(result: Result) -> list[Tokens]:
    """Return one event per choice of a finished job, with all tokens of the choice."""
    return [
        Tokens(
            job=result.job,
            try_=0,
            choice=i,
            index=0,
            ids=c.ids,
            text=c.text,
            finish=c.finish,
            stop=c.stop,
            logprobs=c.logprobs,
            prompt_logprobs=c.prompt_logprobs,
            prompt_ids=c.prompt_ids,
            prompt_scores=c.prompt_scores,
        )
        for i, c in enumerate(result.choices)
    ]
