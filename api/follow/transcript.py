"""What one request has been shown, and which events still add to it. Pure."""

from dataclasses import dataclass, field

from shared.protocol.events import Event, Retry, Tokens
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import FinishReason, Result


class Diverged(Exception):
    """An event contradicts what was already shown."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What an event adds to a choice. The text may be empty: it can lag behind the tokens."""

    choice: int
    text: str
    finish: FinishReason | None
    logprobs: tuple[PositionLogprobs, ...] = ()
    """Of an echoed prompt as well."""


@dataclass(slots=True)
class ChoiceTranscript:
    """The tokens and the text of one choice so far."""

    ids: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    """Of an echoed prompt as well."""
    num_chars: int = 0
    finish: FinishReason | None = None

    @property
    def text(self) -> str:
        """Everything shown."""
        return "".join(self.parts)


class Transcript:
    """Accepts each token of a job once, by (try, choice, index)."""

    def __init__(self, num_choices: int) -> None:
        self.choices = [ChoiceTranscript() for _ in range(num_choices)]
        self._min_try = 0

    @property
    def is_complete(self) -> bool:
        """Whether every choice has finished."""
        return all(choice.finish is not None for choice in self.choices)

    @property
    def num_tokens(self) -> int:
        """Output tokens over all choices."""
        return sum(len(choice.ids) for choice in self.choices)

    def is_void(self, event: Event) -> bool:
        """Whether it comes from a try that has been given up."""
        return event.try_ < self._min_try

    def void(self, retry: Retry) -> None:
        """Refuse from here on what comes of this try or of an earlier one."""
        self._min_try = max(self._min_try, retry.try_ + 1)

    def can_accept(self, event: Tokens) -> bool:
        """False when tokens in front of it are missing, or it can't be told which text is new.

        Refill with an event that starts at index 0 first.
        """
        num_shown = len(self.choices[event.choice].ids)
        is_old = event.index + len(event.ids) <= num_shown
        return event.index in (0, num_shown) or (event.index < num_shown and is_old)

    def accept(self, event: Tokens) -> Delta | None:
        """Take in what is new in `event`; None if nothing is.

        Raises:
            Diverged: a token differs from the one that was shown at its index.
        """
        self._min_try = max(self._min_try, event.try_)
        shown = self.choices[event.choice]
        overlap = shown.ids[event.index : event.index + len(event.ids)]
        if overlap and tuple(overlap) != event.ids[: len(overlap)]:
            raise Diverged(f"choice {event.choice}, index {event.index}")
        if event.index == 0 and shown.ids:
            text = event.text[shown.num_chars :]  # the event tells the whole text so far
        elif event.index == len(shown.ids):
            text = event.text
        else:
            text = ""
        return self._add(event, text, num_known=len(overlap))

    def _add(self, event: Tokens, text: str, *, num_known: int) -> Delta | None:
        shown, ids = self.choices[event.choice], event.ids[num_known:]
        if shown.finish is not None or not (text or ids or event.finish):
            return None
        logprobs = event.logprobs[num_known:]
        if not shown.ids:
            logprobs = event.prompt_logprobs + logprobs
        shown.ids += ids
        shown.logprobs += logprobs
        shown.parts.append(text)
        shown.num_chars += len(text)
        shown.finish = event.finish
        return Delta(event.choice, text, event.finish, logprobs)


def whole_choices(result: Result) -> list[Tokens]:
    """A finished job's choices, each as one event from index 0."""
    return [
        Tokens(
            job=result.job,
            try_=0,
            choice=i,
            index=0,
            ids=c.ids,
            text=c.text,
            finish=c.finish,
            logprobs=c.logprobs,
            prompt_logprobs=c.prompt_logprobs,
        )
        for i, c in enumerate(result.choices)
    ]
