from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import AdapterVersion
from worker.lora.plan import (
    HALF,
    SINGLE,
    Block,
    Costs,
    Rows,
    Segment,
    plan_blocks,
    segments_of,
)

A, B, C = (AdapterVersion(f"{name}@0") for name in "abc")
ROWS = {A: Rows(0, 8), B: Rows(8, 24), C: Rows(40, 48)}
FREE_BLOCKS = Costs(block=0.0, row=1.0, token_row=1.0)
FREE_ROWS = Costs(block=1.0, row=0.0, token_row=0.0)


def test_neighbours_of_one_adapter_are_one_segment_and_the_base_is_none() -> None:
    assert segments_of([(A, 2), (A, 3), (None, 4), (A, 1), (B, 1), (None, 1)]) == [
        Segment(0, 5, A),
        Segment(9, 10, A),
        Segment(10, 11, B),
    ]
    assert segments_of([(None, 3)]) == []


def test_what_costs_nothing_to_join_is_joined() -> None:
    segments = segments_of([(A, 2), (None, 4), (C, 1)])
    assert plan_blocks(segments, ROWS, FREE_ROWS, 1000) == [Block(tuple(segments), Rows(0, 48))]


def test_what_costs_nothing_to_split_is_split() -> None:
    segments = segments_of([(A, 2), (C, 1)])
    assert plan_blocks(segments, ROWS, FREE_BLOCKS, 1000) == [
        Block((segments[0],), ROWS[A]),
        Block((segments[1],), ROWS[C]),
    ]


def test_adapters_without_rows_here_are_left_out() -> None:
    segments = segments_of([(A, 2), (B, 5), (C, 1)])
    blocks = plan_blocks(segments, {B: ROWS[B]}, HALF, 1000)
    assert blocks == [Block((segments[1],), ROWS[B])]
    assert plan_blocks(segments, {}, HALF, 1000) == []


def test_decodes_share_a_block_and_a_prefill_chunk_has_its_own() -> None:
    decodes = [(version, 1) for version in (A, B, C) * 10]
    segments = segments_of([*decodes, (B, 480)])
    for costs in (HALF, SINGLE):
        blocks = plan_blocks(segments, ROWS, costs, 1152)
        assert [(b.start, b.stop) for b in blocks] == [(0, 30), (30, 510)]


def test_decodes_of_far_apart_rows_are_one_block_if_each_alone_costs_more() -> None:
    rows = {A: Rows(0, 8), B: Rows(88, 96)}
    segments = segments_of([(version, 1) for version in (A, B) * 16])
    assert len(plan_blocks(segments, rows, HALF, 1152)) == 1


def price(blocks: list[Block], costs: Costs, num_features: int) -> float:
    return sum(
        costs.block
        + (b.rows.stop - b.rows.start)
        * num_features
        * 1e-3
        * (costs.row + (b.stop - b.start) * costs.token_row)
        for b in blocks
    )


def all_cuts(segments: list[Segment]) -> list[list[Block]]:
    plans = []
    for mask in range(2 ** (len(segments) - 1)):
        cuts = [0, *(i + 1 for i in range(len(segments) - 1) if mask >> i & 1), len(segments)]
        blocks = []
        for start, stop in pairwise(cuts):
            part = tuple(segments[start:stop])
            low = min(ROWS[s.version].start for s in part)
            high = max(ROWS[s.version].stop for s in part)
            blocks.append(Block(part, Rows(low, high)))
        plans.append(blocks)
    return plans


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, C, None]), st.integers(1, 40)), min_size=1, max_size=8
    ),
    st.sampled_from([HALF, SINGLE]),
)
def test_no_other_cut_is_cheaper(
    sequences: list[tuple[AdapterVersion | None, int]], costs: Costs
) -> None:
    segments = segments_of(sequences)
    if not segments:
        return
    blocks = plan_blocks(segments, ROWS, costs, 1152)
    assert [s for block in blocks for s in block.segments] == segments
    cheapest = min(price(plan, costs, 1152) for plan in all_cuts(segments))
    assert price(blocks, costs, 1152) <= cheapest + 1e-6
