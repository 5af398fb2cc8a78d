"""What the worker relies on in every kind of engine."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engine_kinds import KINDS, EngineKind
from engine_limits import MAX_MODEL_LEN, MAX_NUM_SEQS
from engine_requests import make_request

from shared.errors import AdapterRejected, ErrorCode, JobError
from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.interface import AdapterImage, AnyEngine, EngineStats, EvictionOrder
from worker.engine.request import ChoiceSampling, Request, RequestId, StepOutput

PROMPT = [7, 8, 9, 10, 11]


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> EngineKind:
    return KINDS[request.param](tmp_path)


@pytest.fixture
def engine(kind: EngineKind) -> AnyEngine:
    return kind.engine


def request(name: str, max_tokens: int = 5, *, seed: int = 1, **fields: Any) -> Request:
    values = {"sampling": ChoiceSampling(seed=seed), "claim_epoch": 3, **fields}
    prompt = values.pop("prompt_ids", PROMPT)
    return make_request(name, prompt, max_tokens=max_tokens, **values)


def run(engine: AnyEngine, *requests: Request) -> dict[str, list[StepOutput]]:
    """Add requests, and return the outputs of each until the engine has no more work."""
    for each in requests:
        engine.add(each)
    outputs: dict[str, list[StepOutput]] = {each.id: [] for each in requests}
    while engine.has_work:
        for output in engine.step():
            outputs.setdefault(output.request_id, []).append(output)
    return outputs


def answer(engine: AnyEngine, asked: Request) -> list[int]:
    """Run one request and return its tokens."""
    return ids_of(run(engine, asked)[asked.id])


def ids_of(outputs: list[StepOutput]) -> list[int]:
    assert not [output.error for output in outputs if output.error]
    return [output.token_id for output in outputs if output.token_id is not None]


def error_of(outputs: list[StepOutput]) -> JobError:
    """Return the error of the last output."""
    error = outputs[-1].error
    assert error is not None
    return error


def load(engine: AnyEngine, image: AdapterImage, **options: Any) -> list[AdapterVersion]:
    """Make an adapter resident and return the versions that were evicted for it."""
    placing = engine.place(image, **options)
    assert placing.reserved is not None
    engine.write_adapter(placing.reserved, image)
    engine.activate_adapter(placing.reserved, image)
    return placing.evicted


def assert_empty(engine: AnyEngine) -> None:
    stats = engine.stats()
    assert not engine.has_work
    assert stats.kv_blocks_free == stats.kv_blocks
    assert stats.num_running == stats.num_waiting == 0


# Requests.


def test_a_request_gets_a_token_per_step_until_its_limit_and_both_are_counted(
    engine: AnyEngine,
) -> None:
    before, asked = engine.stats(), request("a")
    outputs = run(engine, asked, request("b", 6, seed=2))["a"]
    assert ids_of(outputs) == asked.output_ids
    assert [output.finish for output in outputs] == [None] * 4 + [FinishReason.LENGTH]
    assert_empty(engine)
    after = engine.stats()
    assert after.num_tokens - before.num_tokens == 11
    assert 6 <= after.num_steps - before.num_steps <= 7
    assert type(after) is EngineStats


def test_a_stop_token_ends_a_request_and_is_output(engine: AnyEngine) -> None:
    free = answer(engine, request("free", 10))
    stopped = run(engine, request("stopped", 10, stop_ids=frozenset({free[4]})))["stopped"]
    assert ids_of(stopped) == free[: free.index(free[4]) + 1]
    assert stopped[-1].finish is FinishReason.STOP
    assert_empty(engine)


def test_the_context_ends_a_request_with_length_and_a_prompt_that_fills_it_is_an_error(
    engine: AnyEngine,
) -> None:
    outputs = run(engine, request("a", 100, prompt_ids=[7] * (MAX_MODEL_LEN - 3)))["a"]
    assert [output.finish for output in outputs] == [None, None, FinishReason.LENGTH]
    outputs = run(engine, request("b", prompt_ids=[7] * MAX_MODEL_LEN))["b"]
    assert error_of(outputs).code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert_empty(engine)


def test_tokens_depend_on_seed_and_choice_but_not_on_the_batch_or_on_what_is_resumed(
    engine: AnyEngine,
) -> None:
    whole = answer(engine, request("alone", 8))
    others = [request(f"other {seed}", 8, seed=seed) for seed in (2, 3)]
    choice = request("choice", 8, sampling=ChoiceSampling(seed=1, choice=1))
    batch = run(engine, others[0], request("again", 8), others[1], choice)
    assert ids_of(batch["again"]) == whole
    assert all(ids_of(batch[other.id]) != whole for other in (*others, choice))
    resumed = request("resumed", 8, output_ids=whole[:5])
    assert answer(engine, resumed) == whole[5:]
    assert resumed.output_ids == whole


def test_waiting_and_running_requests_can_be_aborted_and_have_no_further_output(
    engine: AnyEngine,
) -> None:
    engine.add(request("waiting"))
    engine.abort(RequestId("waiting"))
    assert_empty(engine)
    engine.add(request("a", 50))
    engine.add(request("b", 3))
    engine.step()
    engine.abort(RequestId("a"))
    assert set(run(engine)) == {"b"}
    assert_empty(engine)
    engine.abort(RequestId("a"))
    assert not engine.has_work


def test_requests_beyond_the_limit_wait_and_all_end(engine: AnyEngine) -> None:
    requests = [request(f"{i}", 3, seed=i) for i in range(MAX_NUM_SEQS + 2)]
    for each in requests:
        engine.add(each)
    engine.step()
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting) == (MAX_NUM_SEQS, 2)
    outputs = run(engine)
    assert [outputs[each.id][-1].finish for each in requests] == [FinishReason.LENGTH] * 6
    assert_empty(engine)


def test_log_probabilities_are_reported_to_requests_that_ask_for_them(engine: AnyEngine) -> None:
    asked = request("asked", sampling=ChoiceSampling(seed=1, logprobs=1), scores_prompt=True)
    outputs = run(engine, asked, request("plain"))
    for output in outputs["asked"]:
        assert output.logprobs.logprob <= 0
        assert len(output.logprobs.top) == 1
    prompts = [output.prompt_logprobs for output in outputs["asked"]]
    assert [None if each is None else len(each) for each in prompts] == [len(PROMPT) - 1] + 4 * [
        None
    ]
    assert [output.logprobs for output in outputs["plain"]] == [None] * 5


@pytest.mark.parametrize("num_tokens", [1, 2, 40])
def test_a_request_without_tokens_ends_with_the_log_probabilities_of_its_prompt(
    engine: AnyEngine, num_tokens: int
) -> None:
    fields: dict[str, Any] = {
        "prompt_ids": [7 + i % 5 for i in range(num_tokens)],
        "sampling": ChoiceSampling(seed=1, logprobs=2),
        "scores_prompt": True,
    }
    before = engine.stats()
    outputs = run(engine, request("scored", 0, **fields), request("other", 3))
    [scored] = outputs["scored"]
    assert (scored.token_id, scored.logprobs) == (None, None)
    assert (scored.finish, scored.error) == (FinishReason.LENGTH, None)
    assert len(ids_of(outputs["other"])) == 3
    assert engine.stats().num_tokens - before.num_tokens == 3
    assert_empty(engine)
    sampled = run(engine, request("sampled", 1, **fields))["sampled"]
    assert sampled[0].prompt_logprobs is not None
    assert scored.prompt_logprobs is not None
    assert len(scored.prompt_logprobs) == num_tokens - 1
    assert [each.logprob for each in scored.prompt_logprobs] == pytest.approx(
        [each.logprob for each in sampled[0].prompt_logprobs], abs=1e-4
    )


# vLLM's engine core ends if a step fails, and the worker with it.
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"vllm"}), indirect=True)
def test_a_failing_step_ends_its_requests_and_the_engine_stays_usable(engine: AnyEngine) -> None:
    outputs = run(engine, request("bad", prompt_ids=[-1, -2]))
    assert error_of(outputs["bad"]).code is ErrorCode.INTERNAL
    assert engine.num_failures_in_a_row == 1
    assert_empty(engine)
    assert len(answer(engine, request("good"))) == 5
    assert engine.num_failures_in_a_row == 0


# Adapters.


def test_a_resident_adapter_changes_the_tokens_of_its_requests(kind: EngineKind) -> None:
    images = [kind.image(0), kind.image(1)]
    for image in images:
        assert load(kind.engine, image) == []
    versions = [None, *(image.version for image in images)]
    requests = [request(f"{version}", 8, version=version) for version in versions]
    answers = [tuple(ids_of(outputs)) for outputs in run(kind.engine, *requests).values()]
    assert len(set(answers)) == len(answers)
    assert answer(kind.engine, request("again", 8, version=versions[1])) == list(answers[1])


def test_an_adapter_is_resident_from_its_activation_to_its_removal(kind: EngineKind) -> None:
    image, engine = kind.image(0), kind.engine
    placing = engine.place(image)
    assert placing.reserved is not None
    engine.write_adapter(placing.reserved, image)
    outputs = run(engine, request("early", version=image.version))
    assert error_of(outputs["early"]).code is ErrorCode.ADAPTER_UNAVAILABLE
    assert engine.stats().adapter_bytes > 0
    engine.remove_adapter(image.version)
    assert engine.stats().adapter_bytes == 0
    load(engine, image)
    engine.add(request("a", 50, version=image.version))
    engine.add(request("base", 3))
    engine.step()
    engine.remove_adapter(image.version)
    outputs = run(engine)
    assert error_of(outputs["a"]).code is ErrorCode.ADAPTER_UNAVAILABLE
    assert outputs["base"][-1].finish is FinishReason.LENGTH
    assert engine.stats().adapter_bytes == 0
    assert_empty(engine)


def test_an_adapter_is_written_on_another_thread(kind: EngineKind) -> None:
    old, new = kind.image(0), kind.image(1)
    load(kind.engine, old)
    alone = answer(kind.engine, request("alone", 20, version=old.version))
    placing = kind.engine.place(new)
    assert placing.reserved is not None
    with ThreadPoolExecutor(1) as threads:
        written = threads.submit(kind.engine.write_adapter, placing.reserved, new)
        beside = answer(kind.engine, request("beside", 20, version=old.version))
        written.result()
    assert beside == alone
    kind.engine.activate_adapter(placing.reserved, new)
    assert len(answer(kind.engine, request("new", version=new.version))) == 5


@pytest.mark.parametrize("is_surplus", [False, True])
def test_surplus_adapters_make_room_and_then_the_least_recently_used_one(
    kind: EngineKind, is_surplus: bool
) -> None:
    first, second, third = map(kind.image, range(3))
    assert load(kind.engine, first) == load(kind.engine, second) == []
    answer(kind.engine, request("a", version=first.version))
    surplus = first.version if is_surplus else second.version
    order = EvictionOrder(first={surplus} if is_surplus else frozenset())
    assert load(kind.engine, third, order=order) == [surplus]


def test_only_idle_adapters_are_evicted_and_only_if_it_is_allowed_and_helps(
    kind: EngineKind,
) -> None:
    first, second, new = (kind.image(number) for number in range(3))
    for image in (first, second):
        load(kind.engine, image)
        kind.engine.add(request(image.version, 3, version=image.version))
    assert not kind.engine.has_room(new.num_bytes)
    placing = kind.engine.place(new)
    assert (placing.reserved, placing.evicted) == (None, [])
    run(kind.engine)
    placing = kind.engine.place(new, may_evict=False)
    assert (placing.reserved, placing.evicted) == (None, [])
    assert kind.engine.has_room(new.num_bytes)
    with pytest.raises(AdapterRejected, match="--adapter-memory-mb"):
        kind.engine.place(kind.large_image())
    assert load(kind.engine, new) == [first.version]
