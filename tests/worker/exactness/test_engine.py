"""The engine's answers equal those of transformers + PEFT, alone and in mixed batches."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from engines import engine_of, greedy_request, load, random_prompt, run
from peft import PeftModel
from reference import Reference, count_ties, greedy
from tiny import ARCHITECTURES, save_adapter, tiny_model

NUM_TOKENS = 24
ATTENTION = {"gpt_neox": ["query_key_value", "dense"]}
ADAPTERS = {
    "plain": {"r": 8, "lora_alpha": 16},
    "rslora": {"r": 24, "lora_alpha": 8, "use_rslora": True},
    "patterns": {"r": 3, "lora_alpha": 5, "targets": "last_layer"},
}
PROMPTS = [random_prompt(seed, 3 + 7 * seed % 40) for seed in range(16)]


@dataclass
class Case:
    """One architecture with its adapters, and the reference answer to each prompt."""

    model_type: str
    folders: dict[str, Path]
    expected: dict[tuple[str, int], Reference]


def config_of(name: str, model_type: str) -> dict[str, object]:
    config = dict(ADAPTERS[name])
    modules = ATTENTION.get(model_type, ["q_proj", "k_proj", "v_proj", "o_proj"])
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
    folders = {
        name: save_adapter(root / name, request.param, seed=seed, **config_of(name, request.param))
        for seed, name in enumerate(ADAPTERS)
    }
    expected = {}
    for name in ["base", *ADAPTERS]:
        model = tiny_model(request.param)
        if name != "base":
            model = PeftModel.from_pretrained(model, str(folders[name])).eval()
        for index, prompt in enumerate(PROMPTS):
            if name_of(index) == name:
                expected[name, index] = greedy(model, prompt, NUM_TOKENS)
    return Case(request.param, folders, expected)


def check(case: Case, tokens: dict[str, list[int]]) -> None:
    ties = sum(count_ties(tokens[str(i)], case.expected[name_of(i), i]) for i in range(len(tokens)))
    assert ties <= 1, f"{ties} near ties in {len(tokens) * NUM_TOKENS} tokens"


def test_each_request_alone_equals_the_reference(case: Case) -> None:
    engine, versions = engine_of(load(tiny_model(case.model_type)), case.folders)
    tokens = {}
    for i in range(4):
        request = greedy_request(str(i), PROMPTS[i], NUM_TOKENS, versions.get(name_of(i)))
        tokens |= run(engine, [request])
    check(case, tokens)


def test_a_mixed_batch_with_chunks_and_preemption_equals_the_reference(case: Case) -> None:
    loaded = load(tiny_model(case.model_type))
    engine, versions = engine_of(loaded, case.folders, num_blocks=32, budget=23)
    requests = [
        greedy_request(str(i), prompt, NUM_TOKENS, versions.get(name_of(i)))
        for i, prompt in enumerate(PROMPTS)
    ]
    tokens = run(engine, requests)
    assert engine.stats().num_preemptions > 0
    check(case, tokens)


def test_answers_differ_between_the_base_and_each_adapter(case: Case) -> None:
    engine, versions = engine_of(load(tiny_model(case.model_type)), case.folders)
    requests = [
        greedy_request(name, PROMPTS[5], NUM_TOKENS, versions.get(name))
        for name in ["base", *ADAPTERS]
    ]
    assert len({tuple(t) for t in run(engine, requests).values()}) == 1 + len(ADAPTERS)


def test_resident_adapters_do_not_change_the_bases_answers(case: Case) -> None:
    plain, _ = engine_of(load(tiny_model(case.model_type)))
    full, _ = engine_of(load(tiny_model(case.model_type)), case.folders)
    request = [greedy_request("0", PROMPTS[4], NUM_TOKENS) for _ in range(2)]
    assert run(plain, request[:1]) == run(full, request[1:])


def test_a_moved_request_continues_unchanged(case: Case) -> None:
    engine, versions = engine_of(load(tiny_model(case.model_type)), case.folders)
    version = versions["plain"]
    expected = case.expected["plain", 1]
    moved = greedy_request("1", PROMPTS[1], NUM_TOKENS, version)
    moved.output_ids = expected.tokens[:10]
    assert count_ties(expected.tokens[:10] + run(engine, [moved])["1"], expected) == 0
