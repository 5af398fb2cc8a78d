"""Blocks, tensors and pooled states of a step, for chunks of any lengths."""

from collections import Counter
from itertools import pairwise

import numpy as np
import torch
from counted_operations import Counts, counted
from engine_requests import BLOCK, make_request, make_scheduler
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.ids import AdapterVersion
from worker.engine.batch import build_step
from worker.engine.pooling import pool
from worker.engine.request import Request, RequestId, RequestStatus
from worker.engine.scheduler import Chunk, Scheduler
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


def test_decodes_are_sorted_by_context_length_and_tensors_have_the_dtypes_that_kernels_read() -> (
    None
):
    chunks = [chunk(0, 30, 1, 0), chunk(1, 0, 9, 0), chunk(2, 5, 1, 0), chunk(3, 30, 1, 0)]
    layout = build_step(chunks, CPU).attention
    assert layout.context_lens.tolist() == [6, 31, 31, 9]
    assert layout.slots.dtype == torch.int64
    for tensor in (layout.query_starts, layout.context_lens, layout.block_tables):
        assert tensor.dtype == torch.int32
        assert tensor.is_contiguous()


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


def prefix_request(name: str, prompt: list[int], key: bytes | None = b"weights") -> Request:
    return make_request(name, prompt, cache_key=key)


class Cache:
    """A scheduler and a KV cache whose entries record the tokens that they depend on."""

    def __init__(self, num_blocks: int = 40, *, budget: int = 64, max_num_seqs: int = 8) -> None:
        self.scheduler = make_scheduler(num_blocks, max_num_seqs=max_num_seqs, budget=budget)
        self.entries: dict[int, object] = {}

    def step(self) -> list[Chunk]:
        """Run a step and assert that each chunk attends to its own request's tokens only."""
        chunks = self.scheduler.schedule()
        for chunk in chunks:
            for position in range(chunk.start, chunk.end):
                self.entries[self.slot(chunk.request, position)] = self.origin(
                    chunk.request, position
                )
        for chunk in chunks:
            for position in range(chunk.end):
                found = self.entries[self.slot(chunk.request, position)]
                assert found == self.origin(chunk.request, position)
        for chunk in chunks:
            chunk.request.num_computed_tokens = chunk.end
            self.scheduler.blocks.publish(chunk.request, chunk.start)
            if chunk.samples:
                chunk.request.output_ids.append(7)
        return chunks

    @staticmethod
    def slot(prefix_request: Request, position: int) -> int:
        return prefix_request.block_table[position // BLOCK] * BLOCK + position % BLOCK

    @staticmethod
    def origin(prefix_request: Request, position: int) -> object:
        """Return what a token's key and value depend on: the weights and all tokens up to it."""
        return prefix_request.cache_key, tuple(prefix_request.token_ids(0, position + 1))


def started(cache: Cache, *requests: Request) -> list[tuple[str, int, int]]:
    for r in requests:
        cache.scheduler.add(r)
    return [(c.request.id, c.start, c.num_tokens) for c in cache.step()]


PROMPT = list(range(10))


def test_a_later_request_computes_only_what_follows_the_common_blocks() -> None:
    cache = Cache()
    started(cache, prefix_request("a", PROMPT))
    other = prefix_request("b", [*PROMPT[:8], 90, 91])
    assert started(cache, other)[1] == ("b", 8, 2)
    assert other.num_cached_tokens == 8
    assert cache.scheduler.num_cached_tokens == 8


def test_a_prefix_outlives_the_request_that_computed_it() -> None:
    cache = Cache()
    first = prefix_request("a", PROMPT)
    started(cache, first)
    cache.scheduler.finish(first)
    assert cache.scheduler.blocks.num_free == 40
    assert started(cache, prefix_request("b", PROMPT)) == [("b", 8, 2)]


def test_the_last_token_is_computed_even_if_all_are_known() -> None:
    cache = Cache()
    started(cache, prefix_request("a", PROMPT[:8]))
    assert ("b", 4, 4) in started(cache, prefix_request("b", PROMPT[:8]))


def test_a_request_shares_blocks_that_were_computed_while_it_waited() -> None:
    cache = Cache(budget=8)
    long = list(range(20))
    cache.scheduler.add(prefix_request("a", [*long, 50]))
    cache.scheduler.add(prefix_request("b", [*long, 60]))
    computed = {"a": 0, "b": 0}
    for _ in range(6):
        for chunk in cache.step():
            if chunk.end <= 21:
                computed[chunk.request.id] += chunk.num_tokens
    assert computed["a"] == 21
    assert computed["b"] <= 9  # tokens that a had not computed one step before


def test_idle_prefixes_are_evicted_least_recently_used_first() -> None:
    cache = Cache(num_blocks=6)
    for name, start in (("a", 0), ("b", 100)):
        r = prefix_request(name, list(range(start, start + 10)))
        started(cache, r)
        cache.scheduler.finish(r)
    large = prefix_request("c", list(range(200, 213)))  # 4 blocks, more than the empty ones
    started(cache, large)
    cache.scheduler.finish(large)
    assert started(cache, prefix_request("d", list(range(100, 110))))[0][1] > 0
    assert ("e", 0, 10) in started(cache, prefix_request("e", list(range(10))))


def test_after_a_preemption_only_overwritten_blocks_are_computed_again() -> None:
    cache = Cache(num_blocks=4)
    old, young = prefix_request("old", list(range(7))), prefix_request("young", list(range(50, 57)))
    started(cache, old, young)
    cache.step()
    cache.step()  # old needs a third block
    assert young.status is RequestStatus.WAITING
    cache.scheduler.finish(old)
    assert [(c.request.id, c.start) for c in cache.step()] == [("young", 4)]


@given(
    num_blocks=st.integers(7, 24),
    budget=st.integers(1, 30),
    max_num_seqs=st.integers(1, 5),
    moves=st.lists(
        st.tuples(
            st.sampled_from(["add", "step", "step", "abort"]),
            st.integers(1, 20),
            st.sampled_from([b"one", b"two", None]),
        ),
        max_size=60,
    ),
)
def test_requests_attend_to_their_own_tokens_only_all_end_and_no_block_is_lost(
    num_blocks: int, budget: int, max_num_seqs: int, moves: list[tuple[str, int, bytes | None]]
) -> None:
    cache = Cache(num_blocks, budget=budget, max_num_seqs=max_num_seqs)
    made: list[Request] = []

    def step_and_end() -> None:
        chunks = cache.step()
        assert sum(c.num_tokens for c in chunks) <= budget
        assert len(cache.scheduler.running) <= max_num_seqs
        assert bool(chunks) == bool(cache.scheduler.running or cache.scheduler.waiting)
        for chunk in chunks:
            if len(chunk.request.output_ids) == 4:
                cache.scheduler.finish(chunk.request)

    for move, number, key in moves:
        if move == "add":
            # Prompts have few distinct prefixes, so that many requests share one. With its answer,
            # each has at most 24 tokens, so that it fits into the blocks alone.
            prompt = [number % 2] * (number // 2) + [number % 3] * (number - number // 2)
            made.append(prefix_request(str(len(made)), prompt, key))
            cache.scheduler.add(made[-1])
        elif move == "abort":
            found = cache.scheduler.find(RequestId(str(number)))
            if found is not None:
                cache.scheduler.finish(found)
        else:
            step_and_end()
        check_balance(cache.scheduler, made)
    for _ in range(20 * len(made) + 500):
        step_and_end()
    assert all(r.status is RequestStatus.FINISHED for r in made)
    assert cache.scheduler.blocks.num_free == num_blocks


def check_balance(s: Scheduler, made: list[Request]) -> None:
    owners = Counter(block for r in made for block in r.block_table)
    assert len(owners) + s.blocks.num_free == s.blocks.num_blocks
    for r in made:
        assert len(r.block_table) == len(set(r.block_table))
        assert r.cache_key or all(owners[block] == 1 for block in r.block_table)
        is_running = r.status is RequestStatus.RUNNING
        assert is_running == (r in s.running)
        assert is_running or not r.block_table
        assert len(r.block_table) * BLOCK >= r.num_computed_tokens
