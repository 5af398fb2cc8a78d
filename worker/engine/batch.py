"""The tensors of one step, made from its chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.ids import AdapterVersion
from worker.engine.request import Request
from worker.engine.scheduler import Chunk
from worker.model.attention import AttentionBatch, AttentionGroup
from worker.model.kv_cache import BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class StepBatch:
    """All chunks of a step, flattened into one row of T tokens."""

    input_ids: Tensor
    """`[1, T]` int64."""
    positions: Tensor
    """`[1, T]` int64."""
    attention: AttentionBatch
    fresh_blocks: Tensor | None
    """`[N]` int64: blocks to be cleared before the step, as it doesn't fill them; None if none."""
    sampled: list[Request]
    """The S requests that get a token."""
    scored: list[tuple[Request, int]]
    """Requests and positions of prompt tokens, P in all: how likely is the token behind each?"""
    logits_rows: Tensor
    """`[S + P]` int64: the rows of T whose logits are needed, for `sampled`, then for `scored`."""
    segments: list[tuple[AdapterVersion | None, int]]
    """(adapter version, number of tokens) of each chunk, from left to right."""


def build_step(chunks: Sequence[Chunk], device: torch.device) -> StepBatch:
    """The batch of `chunks`: decodes first, by context length, then prefill chunks.

    Equally long contexts stand together, so that one long context doesn't pad all others.
    """
    ordered = sorted(chunks, key=lambda c: (c.num_tokens, _padded_blocks(c)))
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    rows: list[int] = []
    scored: list[tuple[Request, int]] = []
    scored_rows: list[int] = []
    for chunk in ordered:
        to_score = _positions_to_score(chunk)
        scored += ((chunk.request, position) for position in to_score)
        scored_rows += (len(ids) + position - chunk.start for position in to_score)
        ids += chunk.request.token_ids(chunk.start, chunk.end)
        positions += range(chunk.start, chunk.end)
        table = chunk.request.block_table
        slots += (
            table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE
            for p in range(chunk.start, chunk.end)
        )
        if chunk.samples:
            rows.append(len(ids) - 1)
    packed = torch.tensor([ids, positions, slots], dtype=torch.int64).to(device)
    return StepBatch(
        input_ids=packed[0:1],
        positions=packed[1:2],
        attention=AttentionBatch(packed[2], list(_groups(ordered, packed[1]))),
        fresh_blocks=_fresh_blocks(ordered, device),
        sampled=[c.request for c in ordered if c.samples],
        scored=scored,
        logits_rows=torch.tensor(rows + scored_rows, dtype=torch.int64, device=device),
        segments=[(c.request.version, c.num_tokens) for c in ordered],
    )


def _positions_to_score(chunk: Chunk) -> range:
    """Positions in the chunk whose logits say how likely the prompt's next token was.

    Those that were scored before, when the request was preempted, aren't scored again.
    """
    request = chunk.request
    if not request.scores_prompt:
        return range(0)
    first = max(chunk.start, len(request.prompt_logprobs))
    return range(first, min(chunk.end, len(request.prompt_ids) - 1))


def _padded_blocks(chunk: Chunk) -> int:
    """Length of the chunk's block table, rounded up to 1, 2, 3, 4, 6, 8, 12, 16, ... blocks."""
    num_blocks = -(-chunk.end // BLOCK_SIZE)
    power = 1 << (num_blocks - 1).bit_length()
    return power * 3 // 4 if num_blocks <= power * 3 // 4 else power


def _fresh_blocks(chunks: Sequence[Chunk], device: torch.device) -> Tensor | None:
    """The blocks that these chunks begin and leave partly empty.

    What an earlier owner left there is masked, but a NaN spoils even what is masked.
    """
    fresh = [
        c.request.block_table[c.end // BLOCK_SIZE]
        for c in chunks
        if c.end % BLOCK_SIZE and c.start <= c.end // BLOCK_SIZE * BLOCK_SIZE
    ]
    return torch.tensor(fresh, dtype=torch.int64, device=device) if fresh else None


def _groups(ordered: Sequence[Chunk], positions: Tensor) -> Iterator[AttentionGroup]:
    start = first = 0
    while first < len(ordered):
        num_queries, blocks = ordered[first].num_tokens, _padded_blocks(ordered[first])
        last = first + 1
        while (
            last < len(ordered)
            and ordered[last].num_tokens == num_queries
            and _padded_blocks(ordered[last]) == blocks
        ):
            last += 1
        tables = _pad([_used_blocks(c) for c in ordered[first:last]])
        end = start + (last - first) * num_queries
        yield AttentionGroup(
            start=start,
            num_queries=num_queries,
            block_tables=torch.tensor(tables, dtype=torch.int64).to(positions.device),
            query_positions=positions[start:end].view(last - first, num_queries),
        )
        start, first = end, last


def _used_blocks(chunk: Chunk) -> list[int]:
    return chunk.request.block_table[: -(-chunk.end // BLOCK_SIZE)]


def _pad(tables: list[list[int]]) -> list[list[int]]:
    """Tables of one length, padded with a block of their own: another's may hold NaN."""
    length = max(map(len, tables))
    return [table + table[:1] * (length - len(table)) for table in tables]
