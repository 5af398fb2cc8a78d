"""Collects the output of a job until a stream can continue after one of its events. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.event_ids import NOTHING, Middle, Sent, checksum_of


class Misplaced(Exception):
    """The answer doesn't have the text that precedes the position in the stream."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A delta to render again. The client may already have the first chunks of it."""

    delta: Delta
    num_chunks: int | None = 0
    """Number of the delta's chunks that the client has; None if it has all of them."""


class CatchUp:
    """Collects a job's output until it includes everything that a resuming client already has.

    Then `add` returns the output that the stream must replay.
    """

    def __init__(self, position: Middle) -> None:
        self._position = position
        self._choices = [ChoiceTranscript() for _ in position.choices]

    def add(self, deltas: Sequence[Delta]) -> list[Replay]:
        """Add deltas. Return nothing until the position is reached, and then all deltas to replay.

        The first replayed deltas restore the state that the stream had at the position. The others
        contain all further output. Once `add` has returned deltas, callers must not call
        it again.

        Raises:
            Misplaced: a choice ended before the position, or its text differs from the text that
                the client has.
        """
        for delta in deltas:
            choice = self._choices[delta.choice]
            choice.append(delta)
            choice.ids += delta.ids
            choice.prompt_ids = choice.prompt_ids or delta.prompt_ids
        if not self._is_reached():
            return []
        self._verify()
        return [*self._replays()]

    def _is_reached(self) -> bool:
        covered = [self._position.covered(index) for index in range(len(self._choices))]
        pairs = list(zip(self._choices, covered, strict=True))
        if any(choice.finish and not _has(choice, sent) for choice, sent in pairs):
            raise Misplaced
        return all(_has(choice, sent) for choice, sent in pairs)

    def _verify(self) -> None:
        covered = [
            _between(index, choice, NOTHING, self._position.covered(index)).text
            for index, choice in enumerate(self._choices)
        ]
        if checksum_of(covered) != self._position.checksum:
            raise Misplaced

    def _replays(self) -> Iterator[Replay]:
        # Ids and token counts depend on everything that was sent before. The order is therefore the
        # stream's: the output that the client has, the delta with the cut, all further output.
        for index, choice in enumerate(self._choices):
            # None: the client has all chunks, so the writer adds the output and emits nothing.
            yield Replay(_between(index, choice, NOTHING, self._position.choices[index]), None)
        if cut := self._position.cut:
            sent, choice = self._position.choices[cut.choice], self._choices[cut.choice]
            yield Replay(_between(cut.choice, choice, sent, cut.end), cut.num_chunks)
        for index, choice in enumerate(self._choices):
            covered = self._position.covered(index)
            if not covered.is_finished:
                yield Replay(_between(index, choice, covered, _all_of(choice)))


def _has(choice: ChoiceTranscript, sent: Sent) -> bool:
    """Return whether the output of a choice includes everything in `sent`."""
    if sent.is_finished:
        return choice.finish is not None
    return (
        choice.num_chars >= sent.num_chars
        and len(choice.logprobs) >= sent.num_logprobs
        and len(choice.ids) >= sent.num_tokens
    )


def _all_of(choice: ChoiceTranscript) -> Sent:
    """Return the position at the end of a choice's output so far."""
    is_finished = choice.finish is not None
    return Sent(choice.num_chars, len(choice.logprobs), len(choice.ids), is_finished=is_finished)


def _between(index: int, choice: ChoiceTranscript, start: Sent, end: Sent) -> Delta:
    """Return the output of a choice from `start` up to `end`. `start` must not be finished."""
    last = _all_of(choice) if end.is_finished else end
    ids = tuple(choice.ids[start.num_tokens : last.num_tokens])
    has_prompt = not start.num_tokens and bool(ids or end.is_finished)
    return Delta(
        choice=index,
        text=choice.text[start.num_chars : last.num_chars],
        finish=choice.finish if end.is_finished else None,
        logprobs=tuple(choice.logprobs[start.num_logprobs : last.num_logprobs]),
        ids=ids,
        prompt_ids=choice.prompt_ids if has_prompt else (),
    )
