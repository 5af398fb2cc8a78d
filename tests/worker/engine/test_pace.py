from dataclasses import dataclass
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.pace import MAX_GROWTH, MIN_PROMPT_TOKENS, STRETCH, Pace, StepSize

LIMIT = 2048


@dataclass(frozen=True)
class Machine:
    """What steps cost on it."""

    fixed_ms: float = 10.0
    decode_ms: float = 0.1
    token_ms: float = 0.2
    double_at: float = inf
    """The context with which a prompt token costs twice as much as with none."""

    def ms(self, step: StepSize) -> float:
        of_token = self.token_ms * (1 + step.context / self.double_at)
        return self.fixed_ms + self.decode_ms * step.num_decodes + of_token * step.num_prompt_tokens

    def run(
        self, pace: Pace, num_decodes: int, num_prompt_tokens: int = 0, context: int = 0
    ) -> float:
        """Let the pace observe a step; milliseconds that it took."""
        step = StepSize(num_decodes, num_prompt_tokens, context + num_prompt_tokens / 2)
        pace.observe(step, self.ms(step))
        return self.ms(step)


@dataclass(frozen=True)
class PromptStep:
    num_prompt_tokens: int
    stretch: float
    """Of a step that only decodes."""


def prompt_steps(
    machine: Machine, pace: Pace, num_decodes: int, prompt: int, num_prompts: int = 1
) -> list[PromptStep]:
    """Compute a prompt, one of `num_prompts`, beside `num_decodes` streams, as the pace allows."""
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


def test_without_decodes_a_step_takes_all_that_the_limit_allows() -> None:
    pace = Pace()
    Machine().run(pace, 8)
    assert pace.max_tokens(0, 1, 0, LIMIT) == LIMIT


def test_before_any_decode_was_timed_the_limit_holds() -> None:
    pace = Pace()
    assert pace.max_tokens(8, 1, 0, LIMIT) == LIMIT
    Machine().run(pace, 0, 512)
    assert pace.max_tokens(8, 1, 0, LIMIT) == LIMIT


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
def test_no_step_of_any_prompt_stretches_a_decode_by_much_more_than_promised(
    machine: Machine, num_decodes: int
) -> None:
    pace = Pace()
    for prompt in (300, 3000, 1500, 40, 3000):
        for step in prompt_steps(machine, pace, num_decodes, prompt):
            assert step.stretch <= STRETCH * 1.15 or step.num_prompt_tokens <= MIN_PROMPT_TOKENS


def test_it_finds_out_how_much_fits() -> None:
    machine, pace = Machine(fixed_ms=20, decode_ms=0, token_ms=0.1), Pace()
    sizes = [step.num_prompt_tokens for step in prompt_steps(machine, pace, 8, 2000)]
    assert max(sizes) in (199, 200)  # 20 ms more


def test_it_grows_step_by_step_as_a_first_cost_is_a_guess() -> None:
    machine, pace = Machine(token_ms=0.001), Pace()
    sizes = [step.num_prompt_tokens for step in prompt_steps(machine, pace, 8, 2000)]
    assert sizes[0] == MIN_PROMPT_TOKENS
    assert all(after <= MAX_GROWTH * before for before, after in pairwise(sizes))


def test_where_as_many_prompts_wait_as_streams_run_steps_are_twice_as_large() -> None:
    machine = Machine(fixed_ms=40, decode_ms=0)
    stretches = {}
    for num_prompts in (1, 9, 25):
        steps = prompt_steps(machine, Pace(), 8, 4000, num_prompts)
        stretches[num_prompts] = max(step.stretch for step in steps)
    assert stretches == pytest.approx({1: 2.0, 9: 3.0, 25: 5.0}, rel=0.02)


def test_where_context_costs_much_later_parts_of_a_prompt_are_smaller() -> None:
    machine, pace = Machine(token_ms=0.05, double_at=500), Pace()
    prompt_steps(machine, pace, 8, 3000)
    assert pace.max_tokens(8, 1, 3000, LIMIT) < pace.max_tokens(8, 1, 1500, LIMIT) / 1.2


def test_prompts_get_on_however_slow_they_are() -> None:
    machine, pace = Machine(fixed_ms=0.1, token_ms=100), Pace()
    machine.run(pace, 1)
    assert pace.max_tokens(1, 1, 0, LIMIT) == 1 + MIN_PROMPT_TOKENS
    assert pace.max_tokens(1, 1, 0, 16) == 16


def test_short_prompts_without_streams_dont_make_tokens_look_dear() -> None:
    machine, pace = Machine(fixed_ms=20), Pace()
    prompt_steps(machine, pace, 8, 2000)
    before = pace.max_tokens(8, 1, 0, LIMIT)
    for _ in range(20):
        machine.run(pace, 0, 30)
    assert pace.max_tokens(8, 1, 0, LIMIT) >= 0.9 * before


def test_a_number_of_streams_that_was_never_timed_is_bounded_as_the_next_fewer() -> None:
    machine, pace = Machine(), Pace()
    prompt_steps(machine, pace, 7, 2000)
    assert pace.max_tokens(9, 1, 0, LIMIT) - 9 == pace.max_tokens(7, 1, 0, LIMIT) - 7


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(-2, 2)), min_size=1, max_size=50))
def test_what_is_left_of_prompts_says_little(rests: list[tuple[int, float]]) -> None:
    machine, pace = Machine(fixed_ms=20), Pace()
    prompt_steps(machine, pace, 8, 2000)
    for size, noise_ms in rests:
        step = StepSize(8, size, size / 2)
        pace.observe(step, machine.ms(step) + noise_ms)
        whole = StepSize(8, 64, 32)
        pace.observe(whole, machine.ms(whole))
    assert 40 <= pace.max_tokens(8, 1, 0, LIMIT) - 8 <= 200  # 104 without noise
