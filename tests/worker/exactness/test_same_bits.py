"""An answer has the same bits alone, in a mixed batch, and when it is resumed half way."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from engines import Outputs, engine_of, load, outputs_of, random_prompt, tokens_of
from int8_product import load_quantised
from kernel_sets import (
    ENGINE_SETS,
    NATIVE_DTYPES,
    QUANTISED_NAMES,
    compiled_as,
    linear_kernels,
    quantised_kernels,
)
from tiny import save_adapters, tiny_model

from shared.protocol.ids import AdapterVersion
from worker.engine.request import ChoiceSampling, Request, RequestId, TokenLogprobs
from worker.model.loader import LoadedModel

DENSE = ("llama", "qwen2", "qwen3", "gemma2", "gpt_neox")
CI_RUNS = ("llama", "gemma2")
"""Models that CI runs. Others differ in parts that do nothing across rows."""
ADAPTERS = {n: {"r": r, "target_modules": "all-linear"} for n, r in (("one", 8), ("two", 20))}
NAMES = ["base", *ADAPTERS]
NUM_REQUESTS = 6
NUM_TOKENS = 90
NUM_SHOWN = 40
PROMPTS = [random_prompt(seed, 3 + 37 * seed) for seed in range(NUM_REQUESTS)]


@pytest.fixture(params=ENGINE_SETS, ids=str)
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Return the engines' dtype. Models that the test loads use the kernels of that set."""
    name, dtype = request.param
    linear_kernels(dtype, name)
    with compiled_as(name):
        yield dtype


def request_of(
    index: int, versions: dict[str, AdapterVersion], shown: Sequence[int] = ()
) -> Request:
    """Return a greedy or sampled request of the base or an adapter, by `index`."""
    return Request(
        id=RequestId(str(index)),
        prompt_ids=list(PROMPTS[index]),
        version=versions.get(NAMES[index % len(NAMES)]),
        sampling=ChoiceSampling(seed=index, temperature=index % 2 * 1.0, logprobs=3),
        max_tokens=NUM_TOKENS,
        output_ids=list(shown),
    )


def results(outputs: Outputs, first: int = 0) -> list[tuple[int | None, TokenLogprobs | None]]:
    """Return the tokens of all requests from position `first` on, with their logprobs."""
    return [(o.token_id, o.logprobs) for each in outputs.values() for o in each[first:]]


def check_same_bits(loaded: LoadedModel, folders: dict[str, Path]) -> None:
    """Check the answers alone, in a batch with preemptions, and resumed."""
    engine, versions = engine_of(loaded, folders)
    alone: Outputs = {}
    for index in range(NUM_REQUESTS):
        alone |= outputs_of(engine, [request_of(index, versions)])

    engine, versions = engine_of(loaded, folders, num_blocks=60, budget=23)
    together = outputs_of(engine, [request_of(i, versions) for i in range(NUM_REQUESTS)])
    assert engine.stats().num_preemptions > 0
    assert results(together) == results(alone)

    engine, versions = engine_of(loaded, folders, caches_prefixes=False)
    shown = {int(name): tokens_of(outputs)[:NUM_SHOWN] for name, outputs in alone.items()}
    resumed = outputs_of(engine, [request_of(i, versions, ids) for i, ids in shown.items()])
    assert results(resumed) == results(alone, NUM_SHOWN)


@pytest.mark.parametrize(
    "model_type",
    [
        pytest.param(name, marks=pytest.mark.slow if name in CI_RUNS else pytest.mark.long)
        for name in DENSE
    ],
)
def test_an_answer_has_the_same_bits_in_any_batch(
    model_type: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    loaded = load(tiny_model(model_type).to(dtype))
    check_same_bits(loaded, save_adapters(tmp_path, ADAPTERS, model_type))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NATIVE_DTYPES, ids=str)
def test_an_answer_of_a_base_quantised_on_load_does(dtype: torch.dtype, tmp_path: Path) -> None:
    kernels = quantised_kernels(dtype, QUANTISED_NAMES[0])
    check_same_bits(
        load_quantised(tiny_model().to(dtype), kernels), save_adapters(tmp_path, ADAPTERS)
    )


@pytest.mark.slow
def test_a_token_has_the_same_bits_in_a_prompt_as_in_an_answer(dtype: torch.dtype) -> None:
    engine, _ = engine_of(load(tiny_model().to(dtype)), caches_prefixes=False)
    (answer,) = outputs_of(engine, [request_of(3, {})]).values()
    request = request_of(3, {})
    request.prompt_ids += tokens_of(answer)
    request.scores_prompt = True
    (scored,) = outputs_of(engine, [request]).values()
    assert [*scored[0].prompt_logprobs[len(PROMPTS[3]) - 1 :]] == [o.logprobs for o in answer]
