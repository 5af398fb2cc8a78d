"""Adds draft tokens to the chunks of a step."""

from collections.abc import Sequence
from dataclasses import replace

from worker.engine.block_manager import BlockManager
from worker.engine.draft import NO_DRAFT, Draft
from worker.engine.pace import StepSize
from worker.engine.request import Request
from worker.engine.scheduler import Chunk
from worker.engine.speculation.lookup import PromptLookup
from worker.engine.speculation.policy import MAX_DRAFT, MAX_ROWS, StepDurations, draft_lengths


class Drafter:
    """Proposes tokens by prompt lookup if verifying them in a step saves time."""

    def __init__(self, blocks: BlockManager, *, max_model_len: int, max_rows: int) -> None:
        """Create a drafter.

        Sequences have at most `max_model_len` tokens, and steps with drafts at most `max_rows`
        rows.
        """
        self._blocks = blocks
        self._max_model_len = max_model_len
        self._max_rows = min(max_rows, MAX_ROWS)
        self._durations = StepDurations()
        self.num_drafted_tokens = 0

    def observe(self, step: StepSize, ms: float) -> None:
        """Record that `step` took `ms` milliseconds."""
        if step.num_prompt_tokens == 0 and step.num_decodes <= self._max_rows:
            self._durations.observe(step.num_decodes, ms)

    def extend(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Return the chunks of a step, with draft tokens and blocks for them if this saves time."""
        num_rows = sum(chunk.num_tokens for chunk in chunks)
        is_small = num_rows < self._max_rows
        if not is_small or any(chunk.is_prompt or not chunk.samples for chunk in chunks):
            return chunks
        proposals = [self._propose(chunk.request) for chunk in chunks]
        lengths = draft_lengths(
            [
                (len(tokens), chunk.request.lookup.rate if chunk.request.lookup else 0.0)
                for chunk, tokens in zip(chunks, proposals, strict=True)
            ],
            self._durations,
            num_rows=num_rows,
            max_rows=self._max_rows,
        )
        return [
            self._with_draft(chunk, tokens[:length])
            for chunk, tokens, length in zip(chunks, proposals, lengths, strict=True)
        ]

    def _propose(self, request: Request) -> list[int]:
        """Return tokens that may continue the request's answer."""
        lookup = request.lookup = request.lookup or PromptLookup()
        lookup.extend(request.token_ids(lookup.num_tokens, request.num_tokens))
        # The token after the draft is sampled as well.
        num_left = min(
            request.max_tokens - len(request.output_ids) - 1,
            self._max_model_len - request.num_tokens - 1,
        )
        proposed = lookup.propose(min(MAX_DRAFT, num_left))
        # No token is sampled after a stop token.
        ends = (index for index, token in enumerate(proposed) if token in request.stop_ids)
        return proposed[: next(ends, None)]

    def _with_draft(self, chunk: Chunk, token_ids: Sequence[int]) -> Chunk:
        while token_ids and not self._blocks.can_allocate(
            chunk.request, chunk.end + len(token_ids)
        ):
            token_ids = token_ids[:-1]
        draft = _checked(chunk.request, token_ids)
        if not draft:
            return chunk
        self.num_drafted_tokens += len(draft)
        self._blocks.allocate(chunk.request, chunk.end + len(draft))
        return replace(chunk, num_tokens=chunk.num_tokens + len(draft), draft=draft)


def _checked(request: Request, token_ids: Sequence[int]) -> Draft:
    """Return a draft of the tokens before the first one that the grammar doesn't allow."""
    if not token_ids:
        return NO_DRAFT
    if request.grammar is None:
        return Draft(tuple(token_ids))
    masks = request.grammar.look_ahead(token_ids)
    return Draft(tuple(token_ids[: len(masks)]), tuple(masks))
