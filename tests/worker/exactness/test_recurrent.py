"""Models with recurrent layers answer as transformers + PEFT do, whatever happens to a request."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import engine_of, greedy_request, load, outputs_of, random_prompt, tokens_of
from killed_worker import check_answers_over_a_kill
from recurrent import REPRESENTATIVE, TYPES, recurrent_model, save_recurrent, targets
from reference import check_greedy_along, logits_along, with_adapter
from slow_cases import slow_unless
from tiny import save_adapter
from torch import nn
from worker_support import Client

from shared.errors import SettingsError
from worker.engine.engine import NativeEngine
from worker.engine.request import Request
from worker.model.cache_shape import CacheSize
from worker.model.loader import LoadedModel

NAMES = ["base", "first", "second"]
NUM_TOKENS = 40
NUM_REQUESTS = 32
NUM_BLOCKS = 20
SCALE = 0.1
"""Larger weights make the steps of state spaces so long that rounding decides.

With 0.3, transformers' logits of Nemotron-H differ by 0.4 between a whole pass and single steps."""


@dataclass
class Case:
    """A model with recurrent layers, and adapters on all its linears."""

    model_type: str
    loaded: LoadedModel
    adapters: dict[str, Path]

    def model_of(self, name: str) -> Any:
        """Return PEFT's model with an adapter, or the base."""
        base = recurrent_model(self.model_type)
        return base if name == "base" else with_adapter(base, self.adapters[name])

    def engine(self, **options: int) -> tuple[NativeEngine, dict[str, Any]]:
        """Return an engine that has to preempt requests."""
        return engine_of(self.loaded, self.adapters, budget=23, **options)


@pytest.fixture(
    scope="module", params=slow_unless(lambda one: one in REPRESENTATIVE, [(one,) for one in TYPES])
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model_type = request.param
    loaded = load(recurrent_model(model_type))
    names = targets(model_type, list(loaded.base.linears))
    root = tmp_path_factory.mktemp(model_type)
    adapters = {
        name: save_adapter(
            root / name,
            base=recurrent_model(model_type),
            seed=seed,
            scale=SCALE,
            r=r,
            target_modules=names,
        )
        for seed, (name, r) in enumerate({"first": 8, "second": 3}.items())
    }
    return Case(model_type, loaded, adapters)


def requests_of(versions: dict[str, Any]) -> list[tuple[str, Request]]:
    """Return requests with the names of their models. Always three have the same prompt."""
    return [
        (
            NAMES[i // 3 % 3],
            greedy_request(
                str(i),
                random_prompt(i // 3, 3 + 7 * (i // 3) % 60),
                NUM_TOKENS,
                versions.get(NAMES[i // 3 % 3]),
            ),
        )
        for i in range(NUM_REQUESTS)
    ]


def check_answers(case: Case, requests: list[tuple[str, Request]], tokens: dict[Any, Any]) -> None:
    for asked in NAMES:
        model = case.model_of(asked)
        for name, request in requests:
            if name == asked and request.id in tokens:
                got = tokens[request.id]
                assert len(got) == NUM_TOKENS
                check_greedy_along(logits_along(model, request.prompt_ids, got), got)


@contextmanager
def failing_at(module: nn.Module, number: int) -> Iterator[list[int]]:
    """Let call `number` of a module run out of memory. Yield a list of the calls' numbers."""
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(len(calls))
        if len(calls) == number + 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = module.register_forward_hook(fail)
    try:
        yield calls
    finally:
        handle.remove()


def test_answers_equal_the_reference_over_preemptions_an_abort_and_a_failed_step(
    case: Case,
) -> None:
    engine, versions = case.engine(num_blocks=NUM_BLOCKS)
    requests = requests_of(versions)
    outputs: dict[Any, Any] = {request.id: [] for _, request in requests}
    for _, request in requests:
        engine.add(request)
    layers = next(one for one in case.loaded.model.modules() if isinstance(one, nn.ModuleList))
    num_steps = 0
    with failing_at(layers[-1], 40) as calls:  # the states of earlier layers have changed then
        while engine.has_work:
            for output in engine.step():
                assert output.error is None, output.error
                outputs[output.request_id].append(output)
            num_steps += 1
            if num_steps == 30:
                engine.abort(requests[1][1].id)
    stats = engine.stats()
    assert len(calls) > 40
    assert stats.num_out_of_memory == 1
    assert stats.num_cached_tokens > 0
    # Without attention, no memory is taken while an answer grows.
    assert stats.num_preemptions >= 10 or not case.loaded.cache.bytes_per_block
    del outputs[requests[1][1].id]
    check_answers(case, requests, {id_: tokens_of(each) for id_, each in outputs.items()})
    assert engine._scheduler.blocks.num_free == engine._scheduler.blocks.num_blocks
    slots = engine._scheduler.blocks.slots
    assert slots.num_free == slots.num_slots > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_answer_has_the_same_bits_alone_and_in_company(case: Case, dtype: torch.dtype) -> None:
    if dtype != torch.float32:
        case = replace(case, loaded=load(recurrent_model(case.model_type).to(dtype)))

    def answers(numbers: list[int], **options: int) -> dict[Any, Any]:
        engine, versions = case.engine(**options)
        requests = requests_of(versions)
        outputs = outputs_of(engine, [requests[number][1] for number in numbers])
        return {id_: [(o.token_id, o.logprobs) for o in each] for id_, each in outputs.items()}

    together = answers(list(range(12)))
    for number in range(0, 12, 3):
        assert answers([number])[str(number)] == together[str(number)]


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_answers_go_on_after_their_worker_was_killed(
    case: Case, client: Client, redis_url: str, pool: str, tmp_path: Path
) -> None:
    await check_answers_over_a_kill(
        client,
        redis_url,
        pool,
        base=save_recurrent(tmp_path / "base", case.model_type),
        adapters=case.adapters,
        model_of=case.model_of,
    )


def test_states_take_at_most_half_of_the_cache_and_too_little_memory_is_refused() -> None:
    shape = load(recurrent_model("qwen3_5_text")).cache
    state, block = shape.bytes_per_state, shape.bytes_per_block
    plenty = shape.divide(10 * 65 * state, max_num_seqs=64, max_model_len=512)
    assert plenty == CacheSize((650 - 64 - 256 - 1) * state // block, 64, 256)
    little = shape.divide(8 * state, max_num_seqs=64, max_model_len=512)
    assert little == CacheSize(4 * state // block, 3)
    assert shape.total_bytes(little) <= 8 * state
    with pytest.raises(SettingsError, match="--kv-cache-mb is too small for the model's recurrent"):
        shape.divide(3 * state, max_num_seqs=64, max_model_len=512)
