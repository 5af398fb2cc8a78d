"""Scheduling of requests into steps, and preemption."""

from engine_requests import BLOCK, compute, make_request, make_scheduler

from shared.protocol.embeddings import EmbeddingParams
from worker.engine.pace import StepSize
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
    assert [r.id for r in s.embeddings] == ["e1", "e2"]
    for waiting in (second, first):
        s.finish(waiting)
    assert s.num_waiting == 0


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
