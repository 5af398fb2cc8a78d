"""Recurrent states belong to one request each, and a failed pass never advances them."""

from collections.abc import Sequence

import torch
from engine_requests import compute, make_request, make_scheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.errors import JobError
from worker.engine.batch import _state_slots
from worker.engine.model_runner import Computed, Sample, StepRunner
from worker.engine.request import Request
from worker.engine.scheduler import Chunk
from worker.model.recurrent import groups_of

CPU = torch.device("cpu")
NUM_SLOTS, NUM_SNAPSHOTS = 3, 2


class StatefulPasses:
    """A runner whose states are the tokens that they were computed from."""

    has_states = True

    def __init__(self) -> None:
        self.states: dict[int, list[int]] = {0: []}
        """Tokens of the state in each slot."""
        self.wrong: list[tuple[list[int], list[int]]] = []
        """Tokens of each state that was read, and those that it should have had, if they differ.

        An error raised in a pass would only end its requests."""
        self.failures: list[int] = []
        """For each of the next passes that fail, the number of states that it still writes."""

    def run(self, chunks: Sequence[Chunk]) -> list[Computed]:
        sources, slots = _state_slots(chunks).tolist()
        for chunk, source in zip(chunks, sources, strict=True):
            found, expected = self.states[source], chunk.request.token_ids(0, chunk.start)
            self.wrong += [(found, expected)] * (found != expected)
        written = chunks[: self.failures[0]] if self.failures else chunks
        for chunk, slot in zip(written, slots, strict=False):
            self.wrong += [([slot], [])] * (not 1 <= slot <= NUM_SLOTS)
            self.states[slot] = chunk.request.token_ids(0, chunk.end)
        if self.failures:
            self.failures.pop(0)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [Computed(chunk, (Sample(7),) * chunk.num_samples) for chunk in chunks]


class Engine(RuleBasedStateMachine):
    """Runs requests as the engine does, with passes that fail, aborts and preemptions."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = StatefulPasses()
        self.num_requests = 0
        self.missing: dict[str, int] = {}
        """Number of answer tokens that each unfinished request still needs."""

    @initialize(num_blocks=st.integers(8, 14), budget=st.integers(1, 12))
    def start(self, num_blocks: int, budget: int) -> None:
        self.scheduler = make_scheduler(
            num_blocks, budget=budget, num_slots=NUM_SLOTS, num_snapshots=NUM_SNAPSHOTS
        )
        self.runner = StepRunner(self.passes, CPU, max_tokens=budget)

    @rule(
        prompt=st.lists(st.integers(1, 2), min_size=1, max_size=3),
        num_tokens=st.integers(1, 8),
        is_preemptible=st.booleans(),
    )
    def add(self, prompt: list[int], num_tokens: int, is_preemptible: bool) -> None:
        name = str(self.num_requests)
        self.num_requests += 1
        self.missing[name] = num_tokens
        ids = [token for part in prompt for token in [part] * 5]  # some blocks are equal
        self.scheduler.add(make_request(name, ids, is_preemptible=is_preemptible, cache_key=b"key"))

    @precondition(lambda self: self.missing)
    @rule(number=st.integers(0, 100))
    def abort(self, number: int) -> None:
        requests = list(self.scheduler.requests)
        self._end(requests[number % len(requests)])

    @rule(written=st.lists(st.integers(0, 3), max_size=2))
    def fail(self, written: list[int]) -> None:
        self.passes.failures = written

    @rule()
    def step(self) -> None:
        result = self.runner.run(self.scheduler.schedule())
        assert not self.passes.wrong
        last = {computed.chunk.request.id: computed for computed in result.computed}
        for request in (*result.lost, *(request for request, _ in result.failed)):
            last.pop(request.id, None)
        for computed in result.computed:
            request = computed.chunk.request
            request.num_computed_tokens = computed.chunk.end
            blocks = self.scheduler.blocks
            blocks.publish(request, computed.chunk.start)
            if last.get(request.id) is computed:
                request.state_source = request.state_slot
                if (kept := blocks.snapshot(request)) is not None:
                    assert kept > NUM_SLOTS
                    self.passes.states[kept] = self.passes.states[request.state_slot]
            if computed.samples:
                request.output_ids.append(7)
                self.missing[request.id] -= 1
                if not self.missing[request.id]:
                    self._end(request)
        for request in reversed(result.lost):
            self.scheduler.restart(request)
        for request, error in result.failed:
            assert isinstance(error, JobError)
            self._end(request)

    def _end(self, request: Request) -> None:
        self.scheduler.finish(request)
        del self.missing[request.id]

    @invariant()
    def each_slot_has_one_owner(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        slots = [r.state_slot for r in self.scheduler.requests if r.state_slot]
        assert len(slots) == len(set(slots))
        assert all(1 <= slot <= NUM_SLOTS for slot in slots)
        assert {r.state_slot > 0 for r in self.scheduler.running} <= {True}
        assert self.scheduler.blocks.slots.num_free == NUM_SLOTS - len(slots)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.passes.failures = []
        for _ in range(1000):
            if not self.missing:
                break
            self.step()
        assert not self.missing
        assert self.scheduler.blocks.slots.num_free == NUM_SLOTS
        assert self.scheduler.blocks.num_free == self.scheduler.blocks.num_blocks


TestEngine = Engine.TestCase
TestEngine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(lengths=st.lists(st.integers(1, 4), max_size=12).map(sorted))
def test_groups_cover_the_sequences_in_order(lengths: list[int]) -> None:
    numbers = torch.arange(len(lengths))
    groups = groups_of(lengths, numbers, numbers + 100)
    assert [g.length for g in groups] == sorted(set(lengths))
    assert [n for g in groups for n in g.sources.tolist()] == list(range(len(lengths)))
    assert [n - 100 for g in groups for n in g.slots.tolist()] == list(range(len(lengths)))
    starts = [g.start for g in groups] + [sum(lengths)]
    assert all(g.end == start for g, start in zip(groups, starts[1:], strict=True))


def test_requests_wait_for_a_free_slot() -> None:
    scheduler = make_scheduler(num_slots=2)
    requests = [make_request(str(i)) for i in range(3)]
    for request in requests:
        scheduler.add(request)
    assert [chunk.request.id for chunk in scheduler.schedule()] == ["0", "1"]
    scheduler.finish(requests[0])
    chunks = scheduler.schedule()
    assert [chunk.request.id for chunk in chunks] == ["1", "2"]
    assert requests[2].state_slot > 0


def test_a_common_prefix_is_kept_for_the_third_request_and_a_longer_one_for_the_second() -> None:
    scheduler = make_scheduler(num_slots=3, num_snapshots=6)
    common = list(range(10))

    def num_cached(name: str, prompt: list[int]) -> int:
        request = make_request(name, prompt, cache_key=b"key")
        scheduler.add(request)
        while request.is_prefilling or not request.output_ids:
            for chunk in scheduler.schedule():
                compute([chunk])
                scheduler.blocks.publish(request, chunk.start)
                request.state_source = request.state_slot
                scheduler.blocks.snapshot(request)
        cached = request.num_cached_tokens
        scheduler.finish(request)
        return cached

    assert num_cached("first", [*common, 20, 21, 22, 23]) == 0
    assert num_cached("longer", [*common, 20, 21, 22, 23, 24]) == 12  # up to the last full block
    assert num_cached("second", [*common, 30, 31, 32, 33]) == 0  # its prefix ends in another block
    assert num_cached("third", [*common, 40, 41, 42, 43]) == 8
