"""Scheduling of requests into steps, preemption, and the sizes of steps on simulated machines."""

from dataclasses import dataclass
from itertools import pairwise
from math import inf

import pytest
from engine_requests import BLOCK, compute, make_request, make_scheduler
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol.embeddings import EmbeddingParams
from worker.engine.pace import MAX_GROWTH, MIN_PROMPT_TOKENS, STRETCH, Pace, StepSize
from worker.engine.request import Request, RequestStatus
from worker.engine.scheduler import Chunk, Scheduler, step_size


def request(name: str, num_prompt: int = 5, *, is_preemptible: bool = False) -> Request:
    return make_request(name, range(num_prompt), is_preemptible=is_preemptible)


def described(chunks: list[Chunk]) -> list[tuple[str, int, int, bool]]:
    return [(c.request.id, c.start, c.num_tokens, c.samples) for c in chunks]


def test_a_prompt_over_the_budget_is_computed_in_chunks_and_samples_with_the_last() -> None:
    s = make_scheduler(budget=2)
    s.add(request("a"))
    seen = []
    for _ in range(3):
        chunks = s.schedule()
        seen += described(chunks)
        compute(chunks)
    assert seen == [("a", 0, 2, False), ("a", 2, 2, False), ("a", 4, 1, True)]


def test_decodes_take_the_budget_before_prefill_chunks() -> None:
    s = make_scheduler(budget=4)
    s.add(request("long", 9))
    compute(s.schedule())
    s.add(request("short", 3))
    compute(s.schedule())
    compute(s.schedule())
    compute(s.schedule())
    assert s.running[0].output_ids
    s.add(request("late", 9))
    assert described(s.schedule()) == [
        ("long", 10, 1, True),
        ("short", 4, 1, True),
        ("late", 0, 2, False),
    ]


def test_without_free_blocks_the_youngest_is_preempted_and_resumes_before_waiting_requests() -> (
    None
):
    s = make_scheduler(num_blocks=4)
    s.add(request("old", 7))
    s.add(request("young", 7))
    compute(s.schedule())
    compute(s.schedule())  # both requests fill their second block
    s.add(request("new", 3))
    chunks = s.schedule()
    assert described(chunks) == [("old", 8, 1, True)]
    assert [r.id for r in s.waiting] == ["young", "new"]
    assert s.num_preemptions == 1
    compute(chunks)
    s.finish(s.running[0])
    assert described(s.schedule())[0] == ("young", 0, 9, True)


def test_a_steps_size_counts_decodes_and_prompt_tokens_with_their_context() -> None:
    decode = Chunk(request("a"), start=9, num_tokens=1, samples=True)
    last = Chunk(request("b"), start=30, num_tokens=1, samples=True)
    first = Chunk(request("c"), start=0, num_tokens=10, samples=False)
    later = Chunk(request("d"), start=100, num_tokens=30, samples=True)
    assert step_size([decode, last]) == StepSize(2, 0, 0.0)
    # 10 tokens with a mean of 5 tokens before them, and 30 tokens with a mean of 115.
    assert step_size([decode, first, later]) == StepSize(1, 40, (10 * 5 + 30 * 115) / 40)


def paced(num_blocks: int = 1000, max_num_seqs: int = 100) -> Scheduler:
    """Return a scheduler with a running stream, for which 40 prompt tokens double a step's time."""
    s = make_scheduler(num_blocks, max_num_seqs=max_num_seqs, budget=1000)
    s.add(request("stream"))
    compute(s.schedule())
    for _ in range(20):
        s.pace.observe(StepSize(1, 0, 0.0), 40.0)
        s.pace.observe(StepSize(1, 200, 100.0), 240.0)
    return s


def prompt_tokens(chunks: list[Chunk]) -> int:
    return sum(c.num_tokens for c in chunks if c.num_tokens > 1)


def test_prompts_that_wait_for_the_steps_size_make_it_larger_and_others_do_not() -> None:
    for names, num_tokens in (("a", 40), ("abcd", 4 * 40)):
        s = paced()
        for name in names:
            s.add(request(name, 900))
        assert prompt_tokens(s.schedule()) == num_tokens
    no_sequence_free = paced(max_num_seqs=2)
    no_block_free = paced(num_blocks=300)
    for s in (no_sequence_free, no_block_free):
        s.add(request("long", 900))
        compute(s.schedule())
        for name in "abcd":
            s.add(request(name, 900))
        assert prompt_tokens(s.schedule()) == 40


def embedding(name: str, num_prompt: int = 5) -> Request:
    wanted = request(name, num_prompt)
    wanted.embedding = EmbeddingParams()
    return wanted


def test_scores_start_after_all_requests_that_generate_text() -> None:
    s = make_scheduler(max_num_seqs=2)
    for each in (make_request("score", range(5), is_scoring=True), request("a")):
        s.add(each)
    assert described(s.schedule()) == [("a", 0, 5, True), ("score", 0, 5, True)]
    assert [r.id for r in s.requests] == ["a", "score"]


def test_embeddings_start_after_all_other_requests_and_sample_nothing() -> None:
    s = make_scheduler(max_num_seqs=3)
    for each in (embedding("e1"), embedding("e2"), request("a"), request("b")):
        s.add(each)
    assert described(s.schedule()) == [("a", 0, 5, True), ("b", 0, 5, True), ("e1", 0, 5, False)]
    assert (s.num_waiting, [r.id for r in s.requests]) == (1, ["a", "b", "e1", "e2"])


def test_a_preempted_embedding_starts_again_before_younger_ones() -> None:
    s = make_scheduler(num_blocks=4, budget=7)
    generating, first, second = request("a", 4), embedding("e1", 12), embedding("e2", 4)
    for each in (generating, first, second):
        s.add(each)
    compute(s.schedule())
    assert first.status is RequestStatus.RUNNING
    compute(s.schedule())
    assert first.status is RequestStatus.WAITING
    assert [r.id for r in s.inputs] == ["e1", "e2"]
    for waiting in (second, first):
        s.finish(waiting)
    assert s.num_waiting == 0


def step(s: Scheduler) -> list[str]:
    """Run a step, and return the requests that it computes, in order."""
    chunks = s.schedule()
    compute(chunks)
    return [chunk.request.id for chunk in chunks]


def test_preemptible_requests_start_and_their_prompts_go_on_after_all_others_that_can_start() -> (
    None
):
    s = make_scheduler(max_num_seqs=2)
    s.add(request("batch", is_preemptible=True))
    s.add(request("a"))
    s.add(request("b"))
    assert step(s) == ["a", "b"]
    s.finish(s.running[0])
    assert step(s) == ["b", "batch"]
    for max_num_seqs, expected in ((8, [["a"], ["a", "batch"]]), (1, [["batch"], ["batch"]])):
        s = make_scheduler(budget=8, max_num_seqs=max_num_seqs)
        s.add(request("batch", num_prompt=40, is_preemptible=True))
        assert step(s) == ["batch"]
        s.add(request("a", num_prompt=8))
        assert [step(s), step(s)] == expected


def test_preemptible_answers_do_not_limit_the_prompt_of_another_request() -> None:
    s = make_scheduler(budget=512)
    for number in range(4):
        s.add(request(f"batch {number}", is_preemptible=True))
    step(s)
    s.pace.observe(StepSize(num_decodes=4, num_prompt_tokens=0, context=0), ms=10)
    s.pace.observe(StepSize(num_decodes=4, num_prompt_tokens=100, context=50), ms=1000)
    s.add(request("a", num_prompt=300))
    assert step(s)[-1] == "a"
    (urgent,) = [r for r in s.running if r.id == "a"]
    assert not urgent.is_prefilling, "the whole prompt was computed in one step"
    s.finish(urgent)
    s.add(request("batch 9", num_prompt=300, is_preemptible=True))
    step(s)
    assert s.running[-1].is_prefilling, "preemptible prompts are limited as before"


def test_blocks_are_taken_from_preemptible_requests_first() -> None:
    s = make_scheduler(num_blocks=4)
    batch, late = request("batch", 7, is_preemptible=True), request("late", 7)
    s.add(batch)
    step(s)
    s.add(late)
    step(s)
    while batch.status is RequestStatus.RUNNING:
        step(s)
    assert late.status is RequestStatus.RUNNING
    assert list(s.preemptible) == [batch]
    s.finish(late)
    assert step(s) == ["batch"]


def test_many_preemptible_prompts_make_a_step_no_longer_than_one() -> None:
    def largest_step(num_waiting: int) -> int:
        s = make_scheduler(1000, max_num_seqs=64, budget=512)
        for number in range(4):
            s.add(request(f"old {number}", is_preemptible=True))
        step(s)
        s.pace.observe(StepSize(num_decodes=4, num_prompt_tokens=0, context=0), ms=10)
        s.pace.observe(StepSize(num_decodes=4, num_prompt_tokens=200, context=50), ms=50)
        for number in range(num_waiting):
            s.add(request(f"new {number}", 200, is_preemptible=True))
        return sum(chunk.num_tokens for chunk in s.schedule())

    assert abs(largest_step(32) - largest_step(1)) < BLOCK, "a chunk may end at another block"


def test_a_step_with_the_prompt_of_another_request_has_no_preemptible_prompts() -> None:
    s = make_scheduler(1000, max_num_seqs=64, budget=512)
    s.add(request("batch 0", 300, is_preemptible=True))
    s.pace.observe(StepSize(num_decodes=1, num_prompt_tokens=0, context=0), ms=10)
    step(s)
    for number in range(1, 9):
        s.add(request(f"batch {number}", 100, is_preemptible=True))
    s.add(request("a", 70))
    assert step(s) == ["batch 0", "a"], "answers that run go on"
    assert step(s)[:2] == ["batch 0", "a"]
    assert len(s.running) > 2, "the batch goes on once the prompt is computed"


LIMIT = 2048


@dataclass(frozen=True)
class Machine:
    """Model of the durations of steps on a machine."""

    fixed_ms: float = 10.0
    decode_ms: float = 0.1
    token_ms: float = 0.2
    double_at: float = inf
    """Context, in tokens, at which a prompt token takes twice as long as without context."""

    def ms(self, step: StepSize) -> float:
        of_token = self.token_ms * (1 + step.context / self.double_at)
        return self.fixed_ms + self.decode_ms * step.num_decodes + of_token * step.num_prompt_tokens

    def run(
        self, pace: Pace, num_decodes: int, num_prompt_tokens: int = 0, context: int = 0
    ) -> float:
        """Report a step to `pace` and return its milliseconds."""
        step = StepSize(num_decodes, num_prompt_tokens, context + num_prompt_tokens / 2)
        pace.observe(step, self.ms(step))
        return self.ms(step)


@dataclass(frozen=True)
class PromptStep:
    num_prompt_tokens: int
    stretch: float
    """Duration in multiples of a step that only decodes."""


def prompt_steps(
    machine: Machine, pace: Pace, num_decodes: int, prompt: int, num_prompts: int = 1
) -> list[PromptStep]:
    """Compute one of `num_prompts` prompts in steps of the size that the pace allows.

    `num_decodes` streams decode in each step.
    """
    usual_ms = machine.run(pace, num_decodes)
    steps, done = [], 0
    while done < prompt:
        size = min(
            pace.max_tokens(num_decodes, num_prompts, done, LIMIT) - num_decodes, prompt - done
        )
        ms = machine.run(pace, num_decodes, size, done)
        steps.append(PromptStep(size, ms / usual_ms))
        done += size
    return steps


def test_the_limit_applies_without_decodes_and_before_any_decode_is_timed() -> None:
    pace = Pace()
    assert pace.max_tokens(8, 1, 0, LIMIT) == LIMIT
    Machine().run(pace, 0, 512)
    assert pace.max_tokens(8, 1, 0, LIMIT) == LIMIT
    Machine().run(pace, 8)
    assert pace.max_tokens(0, 1, 0, LIMIT) == LIMIT


@given(
    st.builds(
        Machine,
        fixed_ms=st.floats(0.1, 100),
        decode_ms=st.floats(0, 2),
        token_ms=st.floats(0.01, 2),
        double_at=st.floats(300, 100_000),
    ),
    st.integers(1, 64),
)
def test_no_step_takes_much_longer_than_the_target(machine: Machine, num_decodes: int) -> None:
    pace = Pace()
    for prompt in (300, 3000, 1500, 40, 3000):
        for step in prompt_steps(machine, pace, num_decodes, prompt):
            assert step.stretch <= STRETCH * 1.15 or step.num_prompt_tokens <= MIN_PROMPT_TOKENS


def test_the_pace_learns_how_many_prompt_tokens_fit_in_steps_that_grow_by_a_limited_factor() -> (
    None
):
    machine, pace = Machine(fixed_ms=20, decode_ms=0, token_ms=0.1), Pace()
    sizes = [step.num_prompt_tokens for step in prompt_steps(machine, pace, 8, 2000)]
    assert max(sizes) in (199, 200)  # 20 ms more
    assert pace.max_tokens(9, 1, 0, LIMIT) - 9 == pace.max_tokens(8, 1, 0, LIMIT) - 8
    machine, pace = Machine(token_ms=0.001), Pace()
    sizes = [step.num_prompt_tokens for step in prompt_steps(machine, pace, 8, 2000)]
    assert sizes[0] == MIN_PROMPT_TOKENS
    assert all(after <= MAX_GROWTH * before for before, after in pairwise(sizes))
    machine, pace = Machine(fixed_ms=0.1, token_ms=100), Pace()
    machine.run(pace, 1)
    assert pace.max_tokens(1, 1, 0, LIMIT) == 1 + MIN_PROMPT_TOKENS
    assert pace.max_tokens(1, 1, 0, 16) == 16


def test_steps_are_longer_if_more_prompts_wait() -> None:
    machine = Machine(fixed_ms=40, decode_ms=0)
    stretches = {}
    for num_prompts in (1, 9, 25):
        steps = prompt_steps(machine, Pace(), 8, 4000, num_prompts)
        stretches[num_prompts] = max(step.stretch for step in steps)
    assert stretches == pytest.approx({1: 2.0, 9: 3.0, 25: 5.0}, rel=0.02)


def test_if_context_is_expensive_later_chunks_of_a_prompt_are_smaller() -> None:
    machine, pace = Machine(token_ms=0.05, double_at=500), Pace()
    prompt_steps(machine, pace, 8, 3000)
    assert pace.max_tokens(8, 1, 3000, LIMIT) < pace.max_tokens(8, 1, 1500, LIMIT) / 1.2


def test_short_prompts_without_streams_dont_raise_the_cost_of_tokens() -> None:
    machine, pace = Machine(fixed_ms=20), Pace()
    prompt_steps(machine, pace, 8, 2000)
    before = pace.max_tokens(8, 1, 0, LIMIT)
    for _ in range(20):
        machine.run(pace, 0, 30)
    assert pace.max_tokens(8, 1, 0, LIMIT) >= 0.9 * before


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(-2, 2)), min_size=1, max_size=50))
def test_short_last_chunks_of_prompts_have_little_weight(rests: list[tuple[int, float]]) -> None:
    machine, pace = Machine(fixed_ms=20), Pace()
    prompt_steps(machine, pace, 8, 2000)
    for size, noise_ms in rests:
        step = StepSize(8, size, size / 2)
        pace.observe(step, machine.ms(step) + noise_ms)
        regular = StepSize(8, 64, 32)
        pace.observe(regular, machine.ms(regular))
    assert 40 <= pace.max_tokens(8, 1, 0, LIMIT) - 8 <= 200  # 104 without noise
