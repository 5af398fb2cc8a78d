"""The engine's answers equal those of transformers + PEFT, in batches of the base and adapters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from engines import engine_of, greedy_request, load, random_prompt, run
from kernel_sets import compiled_as, every_level
from kinds import attention, kinds, tied_kinds
from reference import (
    check_greedy_along,
    check_logprobs_along,
    logits_along,
    with_adapter,
)
from slow_cases import slow_unless
from tiny import ARCHITECTURES, roughen, save_adapter, save_adapters, tiny_model
from transformers import PreTrainedModel

from worker.engine.engine import NativeEngine
from worker.engine.request import Request

Named = list[tuple[str, Request]]
"""Requests, each with the name of its adapter or `base`."""


def check_answers(engine: NativeEngine, requests: Named, model_of: Callable[[str], Any]) -> None:
    """Run requests in one batch with preemptions, and compare answers and prompt logprobs."""
    tokens = run(engine, [request for _, request in requests])
    assert engine.stats().num_preemptions > 0
    for asked in dict.fromkeys(name for name, _ in requests):
        model = model_of(asked)
        for name, request in requests:
            if name == asked:
                got = tokens[request.id]
                check_greedy_along(logits_along(model, request.prompt_ids, got), got)
                check_prompt_logprobs(model, request)


def check_prompt_logprobs(model: Any, request: Request) -> None:
    first, *rest = request.prompt_ids
    if request.scores_prompt and rest:
        logprobs = [scored.logprob for scored in request.prompt_logprobs]
        assert len(logprobs) == len(rest)
        check_logprobs_along(logits_along(model, [first], rest), rest, logprobs)


def requests_of(names: Iterable[str], num_tokens: int, versions: dict[str, Any]) -> Named:
    """Return a request of each named adapter, or of the base."""
    return [
        (
            name,
            greedy_request(
                str(i), random_prompt(i, 3 + 7 * i % 40), num_tokens, versions.get(name)
            ),
        )
        for i, name in enumerate(names)
    ]


def configs_of(model_type: str) -> dict[str, dict[str, Any]]:
    modules = attention(model_type)
    patterns = {"rank_pattern": {modules[0]: 9}, "alpha_pattern": {modules[0]: 20}}
    configs: dict[str, dict[str, Any]] = {
        "plain": {"r": 8, "lora_alpha": 16},
        "rslora": {"r": 24, "lora_alpha": 8, "use_rslora": True},
        "patterns": {"r": 3, "lora_alpha": 5, "layers_to_transform": [1], **patterns},
    }
    return {name: {**config, "target_modules": modules} for name, config in configs.items()}


@dataclass
class Trained:
    """A base model and the folders of its adapters."""

    base: Callable[[], PreTrainedModel]
    folders: dict[str, Path]

    def model_of(self, name: str) -> Any:
        """Return PEFT's model with an adapter, or the base."""
        return self.base() if name == "base" else with_adapter(self.base(), self.folders[name])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp(request.param)
    folders = save_adapters(root, configs_of(request.param), request.param)
    return Trained(partial(tiny_model, request.param), folders)


@every_level
def test_a_mixed_batch_with_chunks_and_preemption_equals_the_reference(
    plain: Trained, level: str
) -> None:
    with compiled_as(level):
        loaded = load(plain.base())
    engine, versions = engine_of(loaded, plain.folders, num_blocks=32, budget=23)
    requests = requests_of(["base", *plain.folders] * 4, 24, versions)
    check_answers(engine, requests, plain.model_of)


TIED = {"tie_word_embeddings": True}
CASES = [(model_type, {}) for model_type in (*ARCHITECTURES, "gpt2", "phi3", "glm4", "phi")]
CASES += [(model_type, TIED) for model_type in ("llama", "gemma2", "gpt2")]
REPRESENTATIVE = [("llama", TIED)]
"""`test_lora_parity.py` checks each kind on more models."""


@pytest.fixture(
    scope="module",
    params=slow_unless(lambda case: case in REPRESENTATIVE, [(case,) for case in CASES]),
    ids=lambda case: f"{case[0]}{' tied' if case[1] else ''}",
)
def all_kinds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    model_type, overrides = request.param
    case = Trained(lambda: roughen(tiny_model(model_type, **overrides)), {})
    configs = kinds(model_type) | (tied_kinds(model_type) if overrides else {})
    root = tmp_path_factory.mktemp(model_type)
    for seed, (name, config) in enumerate(configs.items()):
        folder = root / str(seed)
        case.folders[name] = save_adapter(folder, base=case.base(), seed=seed, scale=0.2, **config)
    return case


def test_every_kind_in_a_batch_with_all_others_equals_the_reference(all_kinds: Trained) -> None:
    adapters = {f"a{i}": folder for i, folder in enumerate(all_kinds.folders.values())}
    loaded = load(all_kinds.base())
    engine, versions = engine_of(loaded, adapters, num_blocks=12, max_num_seqs=16, budget=23)
    by_kind = dict(zip(all_kinds.folders, versions.values(), strict=True))
    requests = requests_of(["base", *all_kinds.folders] * 2, 20, by_kind)
    for _, request in requests[len(requests) // 2 :]:
        request.sampling = replace(request.sampling, logprobs=0)
        request.scores_prompt = True
    check_answers(engine, requests, all_kinds.model_of)
