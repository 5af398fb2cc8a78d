from hypothesis import given
from hypothesis import strategies as st

from worker.engine.pace import MIN_PROMPT_TOKENS, STRETCH, Pace


def learnt(fixed_ms: float, token_ms: float, sizes: list[int]) -> Pace:
    pace = Pace()
    for size in sizes:
        pace.observe(size, fixed_ms + token_ms * size)
    return pace


def test_without_decodes_a_step_takes_all_that_the_limit_allows() -> None:
    assert learnt(10, 0.5, [8, 512]).max_tokens(0, 512) == 512


def test_before_any_decode_was_timed_the_limit_holds() -> None:
    assert Pace().max_tokens(8, 512) == 512
    assert learnt(10, 0.5, [512]).max_tokens(8, 512) == 512


@given(
    fixed_ms=st.floats(0.1, 100),
    token_ms=st.floats(0.01, 2),
    num_decodes=st.integers(1, 64),
    num_steps=st.integers(1, 30),
)
def test_a_step_with_prompts_never_stretches_a_decode_by_more_than_promised(
    fixed_ms: float, token_ms: float, num_decodes: int, num_steps: int
) -> None:
    pace = learnt(fixed_ms, token_ms, [num_decodes, 512])
    decode_ms = fixed_ms + token_ms * num_decodes
    for _ in range(num_steps):
        size = pace.max_tokens(num_decodes, 512)
        step_ms = fixed_ms + token_ms * size
        # In the same class of sizes as the decodes their average moves with what is tried.
        assert step_ms <= STRETCH * decode_ms * 1.05 or size == num_decodes + MIN_PROMPT_TOKENS
        if size.bit_length() != num_decodes.bit_length():
            pace.observe(size, step_ms)


def test_it_finds_out_how_much_more_fits_where_steps_have_a_high_fixed_cost() -> None:
    pace = learnt(20, 0.1, [8])
    for _ in range(20):
        size = pace.max_tokens(8, 512)
        pace.observe(size, 20 + 0.1 * size)
    assert 250 <= pace.max_tokens(8, 512) <= 330  # 2.5 * 20.8 ms hold 320 tokens


def test_prompts_get_on_however_slow_they_are() -> None:
    assert learnt(0.1, 100, [1]).max_tokens(1, 512) == 1 + MIN_PROMPT_TOKENS
    assert learnt(0.1, 100, [1]).max_tokens(1, 16) == 16
