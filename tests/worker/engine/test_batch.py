"""Tensors of a step, for chunks of any lengths."""

from itertools import pairwise

import torch
from engine_requests import make_request
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol.ids import AdapterVersion
from worker.engine.batch import build_step
from worker.engine.scheduler import Chunk
from worker.model.kv_cache import BLOCK_SIZE

CPU = torch.device("cpu")


def chunk(index: int, start: int, num_tokens: int, num_left: int) -> Chunk:
    """Return a chunk with `num_left` tokens after it; its request's blocks are not adjacent."""
    end = start + num_tokens
    first = 1000 * index
    request = make_request(
        str(index),
        range(first, first + end + num_left),
        version=AdapterVersion(f"a{index}@0") if index % 2 else None,
        block_table=[first + 7 * i for i in range(-(-(end + num_left) // BLOCK_SIZE))],
    )
    return Chunk(request, start, num_tokens, samples=num_left == 0)


PARTS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 40), st.sampled_from([0, 0, 1, 20])),
    min_size=1,
    max_size=8,
)


@given(PARTS)
def test_every_chunk_has_its_tokens_positions_slots_and_blocks(
    parts: list[tuple[int, int, int]],
) -> None:
    chunks = [chunk(index, *part) for index, part in enumerate(parts)]
    by_start = {1000 * index + c.start: c for index, c in enumerate(chunks)}
    step = build_step(chunks, CPU)
    layout = step.attention
    starts = layout.query_starts.tolist()
    seen = []
    for row, (first, end) in enumerate(pairwise(starts)):
        ids = step.input_ids[0, first:end].tolist()
        own = by_start[ids[0]]
        seen.append(own)
        table = own.request.block_table
        positions = list(range(own.start, own.end))
        assert ids == own.request.prompt_ids[own.start : own.end]
        assert step.positions[0, first:end].tolist() == positions
        slots = [table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE for p in positions]
        assert layout.slots[first:end].tolist() == slots
        assert layout.context_lens[row] == own.end
        num_blocks = -(-own.end // BLOCK_SIZE)
        assert layout.block_tables[row, :num_blocks].tolist() == table[:num_blocks]
        assert step.segments[row] == (own.request.version, own.num_tokens)
    assert sorted(map(id, seen)) == sorted(map(id, chunks))
    ends = {starts[row + 1] - 1: c.request for row, c in enumerate(seen) if c.samples}
    assert dict(zip(step.logits_rows.tolist(), step.sampled, strict=True)) == ends


def test_the_attention_batch_has_the_dtypes_that_kernels_read() -> None:
    layout = build_step([chunk(0, 0, 5, 0), chunk(1, 3, 1, 0)], CPU).attention
    assert layout.slots.dtype == torch.int64
    for tensor in (layout.query_starts, layout.context_lens, layout.block_tables):
        assert tensor.dtype == torch.int32
        assert tensor.is_contiguous()


def test_decodes_are_sorted_by_context_length() -> None:
    chunks = [chunk(0, 30, 1, 0), chunk(1, 0, 9, 0), chunk(2, 5, 1, 0), chunk(3, 30, 1, 0)]
    assert build_step(chunks, CPU).attention.context_lens.tolist() == [6, 31, 31, 9]
