"""The engine's answers equal those of transformers + PEFT, in mixed batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engines import engine_of, greedy_request, load, random_prompt, run
from kernel_sets import compiled_as, every_level
from kinds import attention
from reference import check_greedy_along, logits_along, models_of
from tiny import ARCHITECTURES, save_adapters, tiny_model

NUM_TOKENS = 24
ADAPTERS = {
    "plain": {"r": 8, "lora_alpha": 16},
    "rslora": {"r": 24, "lora_alpha": 8, "use_rslora": True},
    "patterns": {"r": 3, "lora_alpha": 5, "targets": "last_layer"},
}
PROMPTS = [random_prompt(seed, 3 + 7 * seed % 40) for seed in range(16)]


@dataclass
class Case:
    """One architecture with its adapters, and the references by the model's name."""

    model_type: str
    folders: dict[str, Path]
    references: dict[str, Any]


def config_of(name: str, model_type: str) -> dict[str, object]:
    config = dict(ADAPTERS[name])
    modules = attention(model_type)
    if config.pop("targets", None):
        first = modules[0]
        config |= {
            "rank_pattern": {first: 9},
            "alpha_pattern": {first: 20},
            "layers_to_transform": [1],
        }
    return config | {"target_modules": modules}


def name_of(index: int) -> str:
    """Return the model of prompt `index`: the base and the adapters take turns."""
    return ["base", *ADAPTERS][index % 4]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    configs = {name: config_of(name, request.param) for name in ADAPTERS}
    folders = save_adapters(root, configs, request.param)
    return Case(request.param, folders, models_of(folders, request.param))


@every_level
def test_a_mixed_batch_with_chunks_and_preemption_equals_the_reference(
    case: Case, level: str
) -> None:
    with compiled_as(level):
        loaded = load(tiny_model(case.model_type))
    engine, versions = engine_of(loaded, case.folders, num_blocks=32, budget=23)
    requests = [
        greedy_request(str(i), prompt, NUM_TOKENS, versions.get(name_of(i)))
        for i, prompt in enumerate(PROMPTS)
    ]
    answers = run(engine, requests)
    assert engine.stats().num_preemptions > 0
    for index, tokens in answers.items():
        model = case.references[name_of(int(index))]
        check_greedy_along(logits_along(model, PROMPTS[int(index)], tokens), tokens)
