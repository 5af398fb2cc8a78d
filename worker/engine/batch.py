"""Builds the tensors of one step from its chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.protocol.ids import AdapterVersion
from worker.engine.request import Request, SampledRow
from worker.engine.scheduler import Chunk
from worker.kernels.interface import AttentionBatch
from worker.kernels.transfer import to_device
from worker.model.kv_cache import BLOCK_SIZE
from worker.model.recurrent import Group, groups_of


@dataclass(frozen=True, slots=True)
class StepBatch:
    """All chunks of a step, concatenated to T tokens."""

    input_ids: Tensor
    """`[1, T]` int64: token ids."""
    positions: Tensor
    """`[1, T]` int64: position of each token in its sequence."""
    attention: AttentionBatch
    sampled: list[SampledRow]
    """The S rows for which a token is sampled.

    Each row is a request in its current state, or in its state after some of its draft tokens."""
    sampled_chunks: list[Chunk]
    """The chunks of the rows in `sampled`. Each chunk has `num_samples` consecutive rows."""
    scored: list[tuple[Request, int]]
    """(request, position) of each of the P prompt tokens whose logits score the next token."""
    logits_rows: Tensor
    """`[S + P]` int64: for each row, the index in `input_ids` of the token whose logits it needs.

    The first S entries belong to the rows of `sampled`, and the others to those of `scored`."""
    pooled: list[tuple[Chunk, int]]
    """(chunk, index of its first token) of each chunk of a request for an embedding."""
    segments: list[tuple[AdapterVersion | None, int]]
    """(adapter version, number of tokens) of each chunk, in the order of the tokens."""
    groups: tuple[Group, ...]
    """Groups of the chunks by their number of tokens, for the recurrent layers."""

    def logits_segments(self) -> list[tuple[AdapterVersion | None, int]]:
        """Return the segments (adapter version, number of rows) of `logits_rows`."""
        sampled = [(chunk.request.version, chunk.num_samples) for chunk in self.sampled_chunks]
        return sampled + [(request.version, 1) for request, _ in self.scored]


def build_step(chunks: Sequence[Chunk], device: torch.device) -> StepBatch:
    """Build the batch of `chunks`, with decodes before prefills.

    Decodes are sorted by context length. This reduces padding, because some kernels pad adjacent
    sequences to the same length.
    """
    ordered = sorted(chunks, key=lambda c: (c.num_tokens, c.end))
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    rows: list[int] = []
    scored: list[tuple[Request, int]] = []
    scored_rows: list[int] = []
    starts = [0]
    pooled: list[tuple[Chunk, int]] = []
    for chunk in ordered:
        to_score = _positions_to_score(chunk)
        scored += ((chunk.request, position) for position in to_score)
        scored_rows += (len(ids) + position - chunk.start for position in to_score)
        if chunk.request.embedding:
            pooled.append((chunk, len(ids)))
        ids += chunk.token_ids()
        positions += range(chunk.start, chunk.end)
        slots += _slots(chunk)
        starts.append(len(ids))
        rows += range(len(ids) - chunk.num_samples, len(ids))
    has_states = ordered[0].request.state_slot > 0
    tokens, query_starts, lengths, tables, logits_rows, *states = to_device(
        [
            np.array([ids, positions, slots], np.int64),
            np.array(starts, np.int32),
            np.array([c.end for c in ordered], np.int32),
            _block_tables(ordered),
            np.array(rows + scored_rows, np.int64),
            *([_state_slots(ordered)] if has_states else []),
        ],
        device,
    )
    return StepBatch(
        input_ids=tokens[0:1],
        positions=tokens[1:2],
        attention=AttentionBatch(
            slots=tokens[2], query_starts=query_starts, context_lens=lengths, block_tables=tables
        ),
        sampled=[row for c in ordered if c.samples for row in c.draft.rows(c.request)],
        sampled_chunks=[c for c in ordered if c.samples],
        scored=scored,
        logits_rows=logits_rows,
        pooled=pooled,
        segments=[(c.request.version, c.num_tokens) for c in ordered],
        groups=tuple(
            group
            for sources, slots in states
            for group in groups_of([c.num_tokens for c in ordered], sources, slots)
        ),
    )


def _positions_to_score(chunk: Chunk) -> range:
    """Return the chunk's positions whose logits score prompt tokens that have no score yet."""
    request = chunk.request
    if not request.scores_prompt:
        return range(0)
    first = max(chunk.start, len(request.prompt_logprobs))
    return range(first, min(chunk.end, len(request.prompt_ids) - 1))


def _slots(chunk: Chunk) -> Iterator[int]:
    table = chunk.request.block_table
    for position in range(chunk.start, chunk.end):
        yield table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE


def _state_slots(chunks: Sequence[Chunk]) -> NDArray[np.int64]:
    """Return the slots that each chunk reads its states from and writes them to, `[2, B]` int64.

    A chunk that doesn't begin after the computed tokens follows a chunk of the same step.
    """
    sources = [
        c.request.state_source if c.start == c.request.num_computed_tokens else c.request.state_slot
        for c in chunks
    ]
    return np.array([sources, [c.request.state_slot for c in chunks]], np.int64)


def _block_tables(chunks: Sequence[Chunk]) -> NDArray[np.int32]:
    """Return the block tables of `chunks`, `[B, M]` int32, padded with block 0."""
    tables = [c.request.block_table[: -(-c.end // BLOCK_SIZE)] for c in chunks]
    padded = np.zeros((len(tables), max(map(len, tables))), dtype=np.int32)
    for row, table in zip(padded, tables, strict=True):
        row[: len(table)] = table
    return padded
