"""Answers of every kind of adapter, in one batch with the base, equal those of PEFT."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from engines import engine_of, greedy_request, load, random_prompt, run
from kinds import kinds, tied_kinds
from reference import check_greedy_along, check_logprobs_along, logits_along, with_adapter
from slow_cases import slow_unless
from tiny import ARCHITECTURES, roughen, save_adapter, tiny_model
from transformers import PreTrainedModel

from worker.engine.request import Request

NUM_TOKENS = 20
TIED = {"tie_word_embeddings": True}
CASES = [(model_type, {}) for model_type in (*ARCHITECTURES, "gpt2", "phi3", "glm4", "phi")]
CASES += [(model_type, TIED) for model_type in ("llama", "gemma2", "gpt2")]
REPRESENTATIVE = [("llama", TIED)]
"""`test_lora_parity.py` checks each kind on more models."""


@dataclass
class Case:
    """A base model with an adapter of each kind."""

    model_type: str
    overrides: dict[str, Any]
    folders: dict[str, Path]

    def base(self) -> PreTrainedModel:
        return roughen(tiny_model(self.model_type, **self.overrides))


@pytest.fixture(
    scope="module",
    params=slow_unless(lambda case: case in REPRESENTATIVE, [(case,) for case in CASES]),
    ids=lambda case: f"{case[0]}{' tied' if case[1] else ''}",
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model_type, overrides = request.param
    case = Case(model_type, overrides, {})
    configs = kinds(model_type) | (tied_kinds(model_type) if overrides else {})
    root = tmp_path_factory.mktemp(model_type)
    for seed, (name, config) in enumerate(configs.items()):
        folder = root / str(seed)
        case.folders[name] = save_adapter(folder, base=case.base(), seed=seed, scale=0.2, **config)
    return case


def requests_of(case: Case, versions: dict[str, Any]) -> list[tuple[str, Request]]:
    """Return two requests for each kind, one of which asks for prompt logprobs."""
    requests = []
    for index, name in enumerate(["base", *case.folders] * 2):
        prompt = random_prompt(index, 3 + 7 * index % 40)
        request = greedy_request(str(index), prompt, NUM_TOKENS, versions.get(name))
        if index > len(case.folders):
            request.sampling = replace(request.sampling, logprobs=0)
            request.scores_prompt = True
        requests.append((name, request))
    return requests


def test_every_kind_in_a_batch_with_all_others_equals_the_reference(case: Case) -> None:
    adapters = {f"a{i}": folder for i, folder in enumerate(case.folders.values())}
    engine, versions = engine_of(
        load(case.base()), adapters, num_blocks=12, max_num_seqs=16, budget=23
    )
    by_kind = dict(zip(case.folders, versions.values(), strict=True))
    requests = requests_of(case, by_kind)
    tokens = run(engine, [request for _, request in requests])
    assert engine.stats().num_preemptions > 0

    for kind in ["base", *case.folders]:
        model = case.base()
        model = with_adapter(model, case.folders[kind]) if kind != "base" else model
        for name, request in requests:
            if name == kind:
                got = tokens[request.id]
                logits = logits_along(model, request.prompt_ids, got)
                check_greedy_along(logits, got)
                _check_prompt_logprobs(model, request)


def _check_prompt_logprobs(model: Any, request: Request) -> None:
    first, *rest = request.prompt_ids
    if request.scores_prompt and rest:
        logprobs = [scored.logprob for scored in request.prompt_logprobs]
        assert len(logprobs) == len(rest)
        check_logprobs_along(logits_along(model, [first], rest), rest, logprobs)
