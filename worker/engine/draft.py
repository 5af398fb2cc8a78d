"""Draft tokens of a request, and the rows that verify them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from worker.engine.request import AllowedTokens, ChoiceSampling, Request, SampledRow


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that a step computes in advance, because the answer may continue with them."""

    token_ids: tuple[int, ...] = ()
    masks: tuple[bytes, ...] = ()
    """For each draft token, a bitmask of the tokens that the grammar allows after it.

    Empty if the request has no grammar."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def rows(self, request: Request) -> Iterator[SampledRow]:
        """Yield `request` in its current state, and in its state after each draft token."""
        yield request
        for number in range(1, len(self) + 1):
            yield DraftedRow(
                request.sampling,
                request.prompt_ids,
                [*request.output_ids, *self.token_ids[:number]],
                request.stop_ids,
                _Mask(self.masks[number - 1]) if self.masks else None,
            )


NO_DRAFT = Draft()


@dataclass(frozen=True, slots=True)
class DraftedRow:
    """A request in its state after some draft tokens, in the form that the sampler reads."""

    sampling: ChoiceSampling
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]
    stop_ids: Collection[int]
    grammar: AllowedTokens | None


@dataclass(frozen=True, slots=True)
class _Mask:
    """The tokens that a grammar allows at one position."""

    mask: bytes

    def allowed(self) -> bytes:
        return self.mask
