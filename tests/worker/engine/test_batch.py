"""Tensors of a step, and hidden states that are pooled, for chunks of any lengths."""

from itertools import pairwise

import numpy as np
import torch
from counted_operations import Counts, counted
from engine_requests import make_request
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.ids import AdapterVersion
from worker.engine.batch import build_step
from worker.engine.pooling import pool
from worker.engine.request import Request, RequestId
from worker.engine.scheduler import Chunk
from worker.kernels.transfer import read_all
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


SIZE = 6


def request(name: str, length: int, pooling: Pooling, *, normalize: bool = False) -> Request:
    embedding = EmbeddingParams(pooling=pooling, normalize=normalize)
    return make_request(name, [0] * length, max_tokens=0, embedding=embedding)


def states_of(length: int, seed: int) -> torch.Tensor:
    return torch.randn(length, SIZE, generator=torch.Generator().manual_seed(seed))


def expected(states: torch.Tensor, params: EmbeddingParams) -> torch.Tensor:
    rows = {Pooling.LAST: states[-1], Pooling.MEAN: states.mean(0), Pooling.FIRST: states[0]}
    vector = rows[params.pooling]
    return torch.nn.functional.normalize(vector, dim=0) if params.normalize else vector


def step(chunks: list[Chunk], states: dict[RequestId, torch.Tensor]) -> dict[RequestId, bytes]:
    """Pool one step, before whose chunks and between them are tokens of other requests."""
    rows, pooled = [torch.full((2, SIZE), 1e6)], []
    for chunk in chunks:
        pooled.append((chunk, sum(map(len, rows))))
        rows += [states[chunk.request.id][chunk.start : chunk.end], torch.full((1, SIZE), 1e6)]
    embeddings = pool(torch.cat(rows), pooled)
    read_all(embeddings)
    return embeddings.value()


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 5), st.sampled_from(Pooling), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_embeddings_of_chunks_of_any_size_equal_those_of_all_states(
    cases: list[tuple[int, int, Pooling, bool]],
) -> None:
    requests = [
        request(str(n), length, pooling, normalize=normalize)
        for n, (length, _, pooling, normalize) in enumerate(cases)
    ]
    states = {r.id: states_of(len(r.prompt_ids), n) for n, r in enumerate(requests)}
    found: dict[RequestId, bytes] = {}
    position = {r.id: 0 for r in requests}
    while len(found) < len(requests):
        chunks = []
        for one, (length, size, _, _) in zip(requests, cases, strict=True):
            start = position[one.id]
            if start < length:
                chunks.append(Chunk(one, start, min(size, length - start), samples=False))
                position[one.id] = chunks[-1].end
        found |= step(chunks, states)
    for one in requests:
        assert one.embedding is not None
        vector = torch.from_numpy(np.frombuffer(found[one.id], "<f4").copy())
        torch.testing.assert_close(vector, expected(states[one.id], one.embedding))


def test_states_that_are_not_finite_give_no_bytes_to_their_request_alone() -> None:
    requests = [request("a", 2, Pooling.MEAN), request("b", 2, Pooling.MEAN)]
    states = {RequestId("a"): torch.full((2, SIZE), torch.nan), RequestId("b"): states_of(2, 0)}
    found = step([Chunk(r, 0, 2, samples=False) for r in requests], states)
    assert found["a"] == b""
    assert len(found["b"]) == 4 * SIZE


def test_the_number_of_operations_does_not_depend_on_the_number_of_requests() -> None:
    def counts(number: int) -> Counts:
        requests = [request(str(n), 3, Pooling.MEAN, normalize=True) for n in range(number)]
        for one in requests:
            one.pooled, one.num_pooled_tokens = torch.zeros(SIZE, dtype=torch.float64), 1
        pooled = [(Chunk(r, 1, 2, samples=False), 2 * n) for n, r in enumerate(requests)]
        with counted() as found:
            read_all(pool(torch.ones(2 * number, SIZE), pooled))
        return found

    few, many = counts(2), counts(20)
    assert few.operations == many.operations
    assert few.uploads == many.uploads
    assert many.reads == {"cpu": 1}
