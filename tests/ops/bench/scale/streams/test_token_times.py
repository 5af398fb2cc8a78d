"""Delays of sampled tokens, from the engine to the client."""

import pytest

from ops.bench.scale.streams.received_stream import is_sampled
from ops.bench.scale.streams.token_times import TokenTimes, delays_s
from shared.protocol.results import FinishReason
from worker.engine.request import RequestId, StepOutput

SAMPLED = next(job for job in map(str, range(100)) if is_sampled(job))
OTHER = next(job for job in map(str, range(100)) if not is_sampled(job))


def output(job: str, finish: FinishReason | None = None) -> StepOutput:
    return StepOutput(request_id=RequestId(f"{job}:1f:0"), token_id=300, finish=finish)


def test_the_tokens_of_sampled_jobs_are_numbered_until_the_job_ends() -> None:
    times = TokenTimes()
    times.record([output(SAMPLED), output(OTHER)])
    times.record([output(SAMPLED, FinishReason.LENGTH)])
    times.record([output(SAMPLED)])
    assert [(job, index) for job, index, _ in times.take()] == [
        (SAMPLED, 0),
        (SAMPLED, 1),
        (SAMPLED, 0),
    ]
    assert times.take() == []
    assert (times.num_steps, times.num_tokens) == (3, 4)


def test_a_delay_needs_both_times_of_a_token() -> None:
    produced = [("a", 0, 1.0), ("a", 1, 2.0)]
    arrived = [("a", 1, 2.5), ("a", 2, 3.0), ("b", 0, 1.0)]
    assert delays_s(produced, arrived) == [pytest.approx(0.5)]
