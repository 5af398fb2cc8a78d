"""Cuts a batch into blocks of tokens that share two matrix products. Policy only: no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from shared.ids import AdapterVersion

MAX_SEGMENTS = 64
"""In one block: bounds the search, and no batch within it loses by it."""


class Segment(NamedTuple):
    """Neighbouring tokens of one adapter."""

    start: int
    stop: int
    version: AdapterVersion


class Rows(NamedTuple):
    """A run of pool rows."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Block:
    """Segments computed together: all tokens from the first to the last, by all of the rows."""

    segments: tuple[Segment, ...]
    rows: Rows

    @property
    def start(self) -> int:
        """The first token."""
        return self.segments[0].start

    @property
    def stop(self) -> int:
        """Behind the last token."""
        return self.segments[-1].stop


@dataclass(frozen=True, slots=True)
class Costs:
    """What blocks cost on a CPU, in microseconds, fitted over 1-512 tokens and 8-1024 rows.

    `block + rows * features / 1000 * (row + tokens * token_row)`, features being in + out.
    Measured on one core of an AMD EPYC with avx512_bf16, torch 2.13, features 576 + 576:

        tokens x rows      4 x 8    32 x 16    32 x 96    128 x 96    512 x 96    512 x 256
        bfloat16 (us)         30         34         86         280         917         2357
        float32 (us)           8         21        160         485        1753         4715

    So 32 decode tokens of 8 adapters (96 rows) are one block in bfloat16, where a product costs
    15 us before it does anything. In float32 they are about four if neighbours share an adapter.
    A prefill chunk of 128 tokens is a block of its own in both.
    """

    block: float
    """Two products and what is around them."""
    row: float
    """Reading a row from memory."""
    token_row: float
    """Multiplying a token by a row."""


HALF = Costs(block=30.0, row=0.25, token_row=0.016)
SINGLE = Costs(block=8.0, row=0.35, token_row=0.031)


def segments_of(sequences: Sequence[tuple[AdapterVersion | None, int]]) -> list[Segment]:
    """The segments of a batch given as (adapter or None for the base, number of tokens)."""
    segments: list[Segment] = []
    stop = 0
    for version, num_tokens in sequences:
        start, stop = stop, stop + num_tokens
        if version is None:
            continue
        if segments and segments[-1].stop == start and segments[-1].version == version:
            start = segments.pop().start
        segments.append(Segment(start, stop, version))
    return segments


def plan_blocks(
    segments: Sequence[Segment],
    rows: Mapping[AdapterVersion, Rows],
    costs: Costs,
    num_features: int,
) -> list[Block]:
    """The cheapest cut into blocks of the segments whose adapter has rows here, in order."""
    segments = [segment for segment in segments if segment.version in rows]
    runs = [rows[segment.version] for segment in segments]
    best = [(0.0, 0, Rows(0, 0))]
    for stop in range(1, len(segments) + 1):
        best.append(_cheapest(segments[:stop], runs, best, costs, num_features))
    blocks: list[Block] = []
    stop = len(segments)
    while stop:
        _, start, span = best[stop]
        blocks.append(Block(tuple(segments[start:stop]), span))
        stop = start
    return blocks[::-1]


def _cheapest(
    segments: Sequence[Segment],
    runs: Sequence[Rows],
    best: Sequence[tuple[float, int, Rows]],
    costs: Costs,
    num_features: int,
) -> tuple[float, int, Rows]:
    """The price of all `segments` at best, and the last block's first segment and rows.

    `best` is the same for each shorter beginning. Plain numbers: this runs some thousand times
    for one batch.
    """
    last = len(segments) - 1
    stop = segments[last].stop
    per_row = num_features * 1e-3 * costs.row
    per_token_row = num_features * 1e-3 * costs.token_row
    low, high = runs[last]
    cheapest = inf
    for start in range(last, max(last - MAX_SEGMENTS, -1), -1):
        low = min(low, runs[start][0])
        high = max(high, runs[start][1])
        num_tokens = stop - segments[start][0]
        price = best[start][0] + (high - low) * (per_row + num_tokens * per_token_row)
        if price < cheapest:
            cheapest, found = price, (start, low, high)
    start, low, high = found
    return cheapest + costs.block, start, Rows(low, high)
