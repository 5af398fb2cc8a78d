"""Cuts a batch into blocks of tokens that share two matrix products. Policy only: no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared.protocol import AdapterVersion


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
    """Microseconds of one block on a CPU, fitted over 1-512 tokens and 8-1024 rows.

    Measured on one core of an AMD EPYC with avx512_bf16, torch 2.13, features 576 + 576:

        tokens x rows      4 x 8    32 x 16    32 x 96    128 x 96    512 x 96    512 x 256
        bfloat16 (us)         30         34         86         280         917         2357
        float32 (us)           8         21        160         485        1753         4715

    So 32 decode tokens of 8 adapters (96 rows) are one block in bfloat16, where a product costs
    15 us before it does anything, and about four in float32; a chunk of 128 tokens is a block
    of its own in both.
    """

    block: float
    """Of two products and what is around them."""
    row: float
    """Of one row, read from memory, per 1,000 features in and out."""
    token_row: float
    """Of one token by one row, per 1,000 features in and out."""

    def of(self, num_tokens: int, num_rows: int, num_features: int) -> float:
        """Microseconds for a block; `num_features` is in + out."""
        return self.block + num_rows * num_features * 1e-3 * (
            self.row + num_tokens * self.token_row
        )


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
    """Blocks for the segments whose adapter has rows here, each joined while that is cheaper."""

    def price(block: Block) -> float:
        num_rows = block.rows.stop - block.rows.start
        return costs.of(block.stop - block.start, num_rows, num_features)

    blocks: list[Block] = []
    for segment in segments:
        if segment.version not in rows:
            continue
        block = Block((segment,), rows[segment.version])
        if blocks and price(joined := _join(blocks[-1], block)) <= price(blocks[-1]) + price(block):
            blocks[-1] = joined
        else:
            blocks.append(block)
    return blocks


def _join(left: Block, right: Block) -> Block:
    rows = Rows(min(left.rows.start, right.rows.start), max(left.rows.stop, right.rows.stop))
    return Block(left.segments + right.segments, rows)
