"""Limits of a step's size, on simulated machines."""

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
