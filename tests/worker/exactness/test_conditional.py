"""Multimodal models answer text as transformers + PEFT do on the whole model, towers included."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conditional import TYPES, conditional_model, save_conditional
from engines import engine_of, greedy_request, outputs_of, random_prompt, run
from killed_worker import check_answers_over_a_kill
from reference import check_greedy_along, logits_along, with_adapter
from tiny import save_adapter
from worker_support import Client

from worker.engine.request import Request
from worker.lora.checkpoint.adapter import read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.model.loader import LoadedModel, load_model

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOWERS_LINEARS = ["fc1", "qkv", "linear_fc1", "linear"]
PATTERN = r"model.language_model.layers.[\d]+.(mlp|cross_attn|self_attn).(up|down|q|v)_proj"
"""Axolotl's example for Gemma 3."""
CONFIGS: dict[str, dict[str, Any]] = {
    "list": {"r": 8, "lora_alpha": 16, "target_modules": [*LINEARS, *TOWERS_LINEARS]},
    "pattern": {"r": 3, "lora_alpha": 9, "target_modules": PATTERN},
}
WRAPPED = {"gemma4": {"exclude_modules": r".*vision_tower.*_proj"}}
"""PEFT can't train the modules around the linears of Gemma 4's tower, but the linears in them."""
NAMES = ["base", *CONFIGS]
NUM_TOKENS = 24


@dataclass
class Case:
    """A multimodal model in a folder, and adapters that PEFT trained on all of it."""

    model_type: str
    folder: Path
    adapters: dict[str, Path]
    loaded: LoadedModel

    def model_of(self, name: str) -> Any:
        """Return PEFT's model with an adapter, or the base, with towers."""
        model = conditional_model(self.model_type)
        return model if name == "base" else with_adapter(model, self.adapters[name])


@pytest.fixture(scope="module", params=TYPES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    folder = save_conditional(root / "base", request.param)
    base = partial(conditional_model, request.param)
    configs = {**CONFIGS, "list": CONFIGS["list"] | WRAPPED.get(request.param, {})}
    adapters = {
        name: save_adapter(root / name, base=base(), seed=seed, **config)
        for seed, (name, config) in enumerate(configs.items())
    }
    loaded = load_model(str(folder), dtype="float32", device="cpu")
    return Case(request.param, folder, adapters, loaded)


def requests_of(versions: dict[str, Any]) -> dict[str, tuple[str, Request]]:
    """Return requests of the base and the adapters by id, with the names of their adapters."""
    named = [(str(i), name) for i, name in enumerate(NAMES * 4)]
    prompts = {id_: random_prompt(int(id_), 3 + 7 * int(id_) % 40) for id_, _ in named}
    return {
        id_: (name, greedy_request(id_, prompts[id_], NUM_TOKENS, versions.get(name)))
        for id_, name in named
    }


def test_no_tower_is_loaded_and_its_tensors_are_counted(case: Case) -> None:
    parameters = [name for name, _ in case.loaded.model.named_parameters()]
    assert parameters
    assert all("language_model" in name or name.startswith("lm_head") for name in parameters)
    assert case.loaded.base.towers
    base, dtype = case.loaded.base, case.loaded.dtype
    read = {
        name: read_checkpoint(name, AdapterFiles(folder), base, dtype=dtype)
        for name, folder in case.adapters.items()
    }
    assert read["list"].num_without_effect > 0
    assert read["pattern"].num_without_effect == 0
    assert len(read["list"].modules) == 2 * len(LINEARS)
    assert len(read["pattern"].modules) == 2 * 4


def test_a_mixed_batch_with_chunks_and_preemption_equals_the_reference(case: Case) -> None:
    engine, versions = engine_of(case.loaded, case.adapters, num_blocks=32, budget=23)
    requests = requests_of(versions)
    tokens = run(engine, [request for _, request in requests.values()])
    assert engine.stats().num_preemptions > 0
    for asked in NAMES:
        model = case.model_of(asked)
        for name, request in requests.values():
            if name == asked:
                got = tokens[request.id]
                check_greedy_along(logits_along(model, request.prompt_ids, got), got)


def test_an_answer_has_the_same_bits_alone_and_in_company(case: Case) -> None:
    def answers(ids: list[str], **options: int) -> dict[Any, Any]:
        engine, versions = engine_of(case.loaded, case.adapters, **options)
        requests = requests_of(versions)
        outputs = outputs_of(engine, [requests[id_][1] for id_ in ids])
        return {id_: [(o.token_id, o.logprobs) for o in each] for id_, each in outputs.items()}

    together = answers([str(i) for i in range(12)], num_blocks=32, budget=23)
    for i in range(6):
        assert answers([str(i)])[str(i)] == together[str(i)]


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_answers_go_on_after_their_worker_was_killed(
    case: Case, client: Client, redis_url: str, pool: str
) -> None:
    await check_answers_over_a_kill(
        client, redis_url, pool, base=case.folder, adapters=case.adapters, model_of=case.model_of
    )
