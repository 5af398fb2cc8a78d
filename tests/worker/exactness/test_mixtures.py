"""Adapters on experts and routers answer as transformers + PEFT do, in mixed batches."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_requests import make_request
from engines import engine_of, load, outputs_of, random_prompt, tokens_of
from mixtures import REPRESENTATIVE, TYPES, mixture_model, parameters
from reference import check_greedy_along, check_logprobs_along, logits_along, with_adapter
from slow_cases import slow_unless
from tiny import save_adapter

from worker.engine.request import ChoiceSampling, Request
from worker.model.loader import LoadedModel

NAMES = ["base", "experts", "all"]
NUM_TOKENS = 16


@dataclass
class Case:
    """A mixture of experts, and adapters on its experts."""

    model_type: str
    loaded: LoadedModel
    adapters: dict[str, Path]

    def model_of(self, name: str) -> Any:
        """Return PEFT's model with an adapter, or the base."""
        base = mixture_model(self.model_type)
        return base if name == "base" else with_adapter(base, self.adapters[name])


@pytest.fixture(
    scope="module", params=slow_unless(lambda one: one in REPRESENTATIVE, [(one,) for one in TYPES])
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model_type = request.param
    loaded = load(mixture_model(model_type))
    named = parameters(loaded.base)
    experts = [name for name in named if "experts" in name]
    assert len(experts) == 2
    configs: dict[str, dict[str, Any]] = {
        "experts": {"r": 9, "lora_alpha": 5, "target_modules": [], "target_parameters": experts},
        "all": {"r": 3, "target_modules": ["q_proj", "o_proj"], "target_parameters": named},
    }
    root = tmp_path_factory.mktemp(model_type)
    adapters = {
        name: save_adapter(
            root / name, base=mixture_model(model_type), seed=seed, scale=0.1, **config
        )
        for seed, (name, config) in enumerate(configs.items())
    }
    return Case(model_type, loaded, adapters)


def requests_of(versions: dict[str, Any]) -> list[tuple[str, Request]]:
    sampling = ChoiceSampling(seed=0, temperature=0.0, logprobs=0)
    return [
        (
            name,
            make_request(
                str(i),
                random_prompt(i, 3 + 7 * i % 40),
                version=versions.get(name),
                sampling=sampling,
                max_tokens=NUM_TOKENS,
            ),
        )
        for i, name in enumerate(NAMES * 5)
    ]


def test_a_mixed_batch_with_chunks_and_preemption_equals_the_reference(case: Case) -> None:
    engine, versions = engine_of(case.loaded, case.adapters, num_blocks=16, budget=23)
    requests = requests_of(versions)
    outputs = outputs_of(engine, [request for _, request in requests])
    assert engine.stats().num_preemptions > 0
    for asked in NAMES:
        model = case.model_of(asked)
        for name, request in requests:
            if name == asked:
                got = tokens_of(outputs[request.id])
                logits = logits_along(model, request.prompt_ids, got)
                logprobs = [o.logprobs.logprob for o in outputs[request.id] if o.logprobs]
                check_greedy_along(logits, got)
                check_logprobs_along(logits, got, logprobs)


def test_an_answer_in_bfloat16_has_the_same_bits_alone_and_in_company(case: Case) -> None:
    case = replace(case, loaded=load(mixture_model(case.model_type).to(torch.bfloat16)))

    def answers(numbers: list[int], **options: int) -> dict[Any, Any]:
        engine, versions = engine_of(case.loaded, case.adapters, budget=23, **options)
        requests = requests_of(versions)
        outputs = outputs_of(engine, [requests[number][1] for number in numbers])
        return {id_: [(o.token_id, o.logprobs) for o in each] for id_, each in outputs.items()}

    together = answers(list(range(9)), num_blocks=24)
    for number in range(6):
        assert answers([number])[str(number)] == together[str(number)]
