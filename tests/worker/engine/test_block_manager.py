"""Blocks are shared by requests with equal prefixes and weights, and by no others."""

from engine_requests import BLOCK, make_request, make_scheduler
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.request import Request, RequestId, RequestStatus
from worker.engine.scheduler import Chunk


def request(name: str, prompt: list[int], key: bytes | None = b"weights") -> Request:
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
    def slot(request: Request, position: int) -> int:
        return request.block_table[position // BLOCK] * BLOCK + position % BLOCK

    @staticmethod
    def origin(request: Request, position: int) -> object:
        """Return what a token's key and value depend on: the weights and all tokens up to it."""
        return request.cache_key, tuple(request.token_ids(0, position + 1))


def started(cache: Cache, *requests: Request) -> list[tuple[str, int, int]]:
    for r in requests:
        cache.scheduler.add(r)
    return [(c.request.id, c.start, c.num_tokens) for c in cache.step()]


PROMPT = list(range(10))


def test_a_later_request_computes_only_what_follows_the_common_blocks() -> None:
    cache = Cache()
    started(cache, request("a", PROMPT))
    other = request("b", [*PROMPT[:8], 90, 91])
    assert started(cache, other)[1] == ("b", 8, 2)
    assert other.num_cached_tokens == 8
    assert cache.scheduler.num_cached_tokens == 8


def test_a_prefix_outlives_the_request_that_computed_it() -> None:
    cache = Cache()
    first = request("a", PROMPT)
    started(cache, first)
    cache.scheduler.finish(first)
    assert cache.scheduler.blocks.num_free == 40
    assert started(cache, request("b", PROMPT)) == [("b", 8, 2)]


def test_the_last_token_is_computed_even_if_all_are_known() -> None:
    cache = Cache()
    started(cache, request("a", PROMPT[:8]))
    assert ("b", 4, 4) in started(cache, request("b", PROMPT[:8]))


def test_a_request_shares_blocks_that_were_computed_while_it_waited() -> None:
    cache = Cache(budget=8)
    long = list(range(20))
    cache.scheduler.add(request("a", [*long, 50]))
    cache.scheduler.add(request("b", [*long, 60]))
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
        r = request(name, list(range(start, start + 10)))
        started(cache, r)
        cache.scheduler.finish(r)
    large = request("c", list(range(200, 213)))  # 4 blocks, more than the empty ones
    started(cache, large)
    cache.scheduler.finish(large)
    assert started(cache, request("d", list(range(100, 110))))[0][1] > 0
    assert ("e", 0, 10) in started(cache, request("e", list(range(10))))


def test_after_a_preemption_only_overwritten_blocks_are_computed_again() -> None:
    cache = Cache(num_blocks=4)
    old, young = request("old", list(range(7))), request("young", list(range(50, 57)))
    started(cache, old, young)
    cache.step()
    cache.step()  # old needs a third block
    assert young.status is RequestStatus.WAITING
    cache.scheduler.finish(old)
    assert [(c.request.id, c.start) for c in cache.step()] == [("young", 4)]


@given(
    num_blocks=st.integers(7, 24),
    budget=st.integers(1, 30),
    moves=st.lists(
        st.tuples(
            st.sampled_from(["add", "step", "step", "abort"]),
            st.integers(1, 20),
            st.sampled_from([b"one", b"two", None]),
        ),
        max_size=60,
    ),
)
def test_requests_attend_to_their_own_tokens_only_and_no_block_is_lost(
    num_blocks: int, budget: int, moves: list[tuple[str, int, bytes | None]]
) -> None:
    cache = Cache(num_blocks, budget=budget, max_num_seqs=4)
    made: list[Request] = []
    for move, number, key in moves:
        if move == "add":
            # Prompts have few distinct prefixes, so that many requests share one.
            prompt = [number % 2] * (number // 2) + [number % 3] * (number - number // 2)
            made.append(request(str(len(made)), prompt, key))
            cache.scheduler.add(made[-1])
        elif move == "abort":
            found = cache.scheduler.find(RequestId(str(number)))
            if found is not None:
                cache.scheduler.finish(found)
        else:
            step_and_end(cache)
        check_balance(cache, made)
    for _ in range(20 * len(made) + 500):
        step_and_end(cache)
    assert all(r.status is RequestStatus.FINISHED for r in made)
    assert cache.scheduler.blocks.num_free == num_blocks


def step_and_end(cache: Cache) -> None:
    for chunk in cache.step():
        if len(chunk.request.output_ids) == 4:
            cache.scheduler.finish(chunk.request)


def check_balance(cache: Cache, made: list[Request]) -> None:
    blocks = cache.scheduler.blocks
    owned = {block for r in made for block in r.block_table}
    assert len(owned) + blocks.num_free == blocks.num_blocks
    for r in made:
        assert len(r.block_table) == len(set(r.block_table))
