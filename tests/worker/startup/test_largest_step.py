"""The step that is run to measure memory."""

import pytest
from engines import engine_of, greedy_request, load, run
from tiny import tiny_model

from worker.model.memory_policy import Batch
from worker.startup.devices import device_of
from worker.startup.largest_step import LargestStep


@pytest.mark.parametrize("arch", ["llama", "mixtral"])
def test_it_computes_all_tokens_and_samples_one_of_each_sequence(arch: str) -> None:
    batch = Batch(max_num_seqs=8, max_num_batched_tokens=600)
    step = LargestStep(load(tiny_model(arch)), batch)
    computed = step.run()
    assert sum(result.chunk.num_tokens for result in computed) == 600
    assert sum(len(result.samples) for result in computed) == 8
    assert max(result.chunk.num_tokens for result in computed) == 512, "the model's context"


def test_it_has_no_more_sequences_than_tokens() -> None:
    step = LargestStep(load(tiny_model()), Batch(max_num_seqs=64, max_num_batched_tokens=16))
    assert [len(result.samples) for result in step.run()] == [1] * 16


def test_its_cache_holds_its_tokens_and_is_counted() -> None:
    loaded = load(tiny_model())
    step = LargestStep(loaded, Batch(max_num_seqs=2, max_num_batched_tokens=40))
    blocks = [block for chunk in step.chunks for block in chunk.request.block_table]
    assert blocks == list(range(4))  # one for a token, and three for 39 tokens
    token_bytes = sum(shape.num_bytes(loaded.dtype) for shape in loaded.kv_shapes)
    assert step.kv_bytes == 4 * 16 * token_bytes


def test_an_engine_that_is_made_afterwards_computes_as_usual() -> None:
    expected = run(engine_of(load(tiny_model()))[0], [greedy_request("a", [5, 6, 7], 8)])
    loaded = load(tiny_model())
    hooks = dict(loaded.model.base_model._forward_hooks)
    LargestStep(loaded, Batch(max_num_seqs=4, max_num_batched_tokens=64)).run()
    assert dict(loaded.model.base_model._forward_hooks) == hooks
    assert run(engine_of(loaded)[0], [greedy_request("a", [5, 6, 7], 8)]) == expected


def test_on_a_cpu_the_step_is_estimated_from_the_models_shape() -> None:
    cpu = device_of(load(tiny_model()))
    assert cpu.is_cpu
    small = cpu.step_bytes(Batch(max_num_seqs=4, max_num_batched_tokens=64))
    large = cpu.step_bytes(Batch(max_num_seqs=8, max_num_batched_tokens=512))
    assert small is not None
    assert large is not None
    assert 0 < small < large < 100 << 20
