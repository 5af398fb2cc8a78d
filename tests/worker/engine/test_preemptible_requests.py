"""Scheduling of preemptible requests beside others."""

from engine_requests import BLOCK, compute, make_request, make_scheduler

from worker.engine.pace import StepSize
from worker.engine.request import Request, RequestStatus
from worker.engine.scheduler import Scheduler


def request(name: str, num_prompt: int = 5, *, is_preemptible: bool = False) -> Request:
    return make_request(name, range(num_prompt), is_preemptible=is_preemptible)


def step(s: Scheduler) -> list[str]:
    """Run a step, and return the requests that it computes, in order."""
    chunks = s.schedule()
    compute(chunks)
    return [chunk.request.id for chunk in chunks]


def test_a_preemptible_request_starts_after_all_others() -> None:
    s = make_scheduler(max_num_seqs=2)
    s.add(request("batch", is_preemptible=True))
    s.add(request("a"))
    s.add(request("b"))
    assert step(s) == ["a", "b"]
    s.finish(s.running[0])
    assert step(s) == ["b", "batch"]


def test_the_prompt_of_another_request_goes_before_an_unfinished_preemptible_prompt() -> None:
    s = make_scheduler(budget=8)
    s.add(request("batch", num_prompt=40, is_preemptible=True))
    assert step(s) == ["batch"]
    s.add(request("a", num_prompt=8))
    assert step(s) == ["a"]
    assert step(s) == ["a", "batch"]


def test_answers_of_preemptible_requests_go_on_while_another_prompt_is_computed() -> None:
    s = make_scheduler(budget=16)
    s.add(request("batch", is_preemptible=True))
    step(s)
    s.add(request("a", num_prompt=8))
    assert step(s) == ["batch", "a"]


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


def test_a_preemptible_prompt_goes_on_if_the_other_request_cannot_start() -> None:
    s = make_scheduler(budget=8, max_num_seqs=1)
    s.add(request("batch", num_prompt=40, is_preemptible=True))
    step(s)
    s.add(request("a"))
    assert step(s) == ["batch"]


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
