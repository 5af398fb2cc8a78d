"""Penalties, biases and logprobs of the engine follow their definitions."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_requests import make_request
from engines import all_outputs_of, engine_of, load, outputs_of, random_prompt, run
from reference import MAX_GAP, models_of
from reference_sampler import adjusted_logits
from tiny import save_adapters, tiny_model

from shared.protocol.ids import AdapterVersion
from worker.engine.request import ChoiceSampling, Request, StepOutput, TokenLogprobs
from worker.engine.rules import NO_TOKEN_LEFT
from worker.model.loader import LoadedModel

NUM_TOKENS = 20
EOS = 2
SAMPLINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "presence": {"presence_penalty": 2.0},
    "frequency": {"frequency_penalty": 1.5},
    "repetition": {"repetition_penalty": 1.8},
    "bias": {"logit_bias": ((7, 100.0), (9, -100.0))},
    "long": {"min_tokens": 12, "logit_bias": ((EOS, 100.0),)},
    "all": {
        "presence_penalty": -0.5,
        "frequency_penalty": 0.9,
        "repetition_penalty": 1.3,
        "logit_bias": ((EOS, 50.0), (8, 6.0)),
        "min_tokens": 5,
    },
}
Models = Mapping[str, Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    configs = {n: {"r": r, "target_modules": "all-linear"} for n, r in (("one", 4), ("two", 12))}
    return save_adapters(tmp_path_factory.mktemp("adapters"), configs)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A model for one engine at a time."""
    return load(tiny_model())


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> Models:
    return models_of(folders)


def request_of(name: str, seed: int, version: AdapterVersion | None, **sampling: Any) -> Request:
    return make_request(
        name,
        random_prompt(seed, 5 + 9 * seed % 30),
        version=version,
        sampling=ChoiceSampling(**{"seed": seed, "temperature": 0.0, **sampling}),
        max_tokens=NUM_TOKENS,
        stop_ids=frozenset({EOS}),
    )


@torch.inference_mode()
def check_greedy(model: Any, request: Request, tokens: list[int]) -> None:
    """Check that each token has the reference's best score, up to float32 rounding."""
    ids = torch.tensor([[*request.prompt_ids, *tokens]])
    rows = model(input_ids=ids).logits[0, len(request.prompt_ids) - 1 : -1]
    for position, token in enumerate(tokens):
        before = replace(request, output_ids=tokens[:position])
        scores = adjusted_logits(rows[position].numpy(), before)
        assert max(scores) - scores[token] < MAX_GAP, f"{request.id}: token {position}"
    assert tokens[-1] == EOS or len(tokens) == NUM_TOKENS
    assert EOS not in tokens[:-1]


def test_a_mixed_batch_follows_the_definitions_through_chunks_and_preemption(
    loaded: LoadedModel, folders: dict[str, Path], models: Models
) -> None:
    engine, versions = engine_of(loaded, folders, num_blocks=24, budget=23)
    requests = {
        (name, kind): request_of(f"{name}:{kind}", seed, versions.get(name), **sampling)
        for name in models
        for seed, (kind, sampling) in enumerate(SAMPLINGS.items())
    }
    tokens = run(engine, requests.values())
    assert engine.stats().num_preemptions > 0
    for (name, _), request in requests.items():
        check_greedy(models[name], request, tokens[request.id])
    lengths = {kind: len(tokens[requests["base", kind].id]) for kind in SAMPLINGS}
    assert lengths["long"] == 13
    assert len({tuple(tokens[requests["base", kind].id]) for kind in SAMPLINGS}) == len(SAMPLINGS)


def test_a_request_whose_limits_leave_no_token_fails_alone(
    loaded: LoadedModel, folders: dict[str, Path]
) -> None:
    engine, _ = engine_of(loaded, folders)
    limits = {"allowed_token_ids": (7, 8), "bad_words": ((7,), (7, 8), (8, 8))}
    doomed, other = request_of("doomed", 1, None, **limits), request_of("other", 2, None)
    results = all_outputs_of(engine, [doomed, other])
    assert [(each.token_id, each.error) for each in results["doomed"]] == [
        (8, None),
        (None, NO_TOKEN_LEFT),
    ]
    assert results["other"][-1].finish is not None


@torch.inference_mode()
def reference_logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    """Return `[len(ids), V]`: row p has the log-probability of each token after position p."""
    return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


def check_logprobs(row: torch.Tensor, token: int, got: TokenLogprobs, num_top: int) -> None:
    assert got.logprob == pytest.approx(float(row[token]), abs=1e-4)
    best = row.topk(num_top)
    assert [value for _, value in got.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert [float(row[i]) for i, _ in got.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_logprobs_ranks_and_named_tokens_equal_transformers_for_any_sampling_and_batch(
    loaded: LoadedModel, folders: dict[str, Path], models: Models
) -> None:
    engine, versions = engine_of(loaded, folders, num_blocks=24, budget=23)
    requests = []
    for name in models:
        for seed, (kind, sampling) in enumerate(SAMPLINGS.items()):
            num_top = [None, 0, 3, 20][seed % 4]
            sampling = {**sampling, "temperature": seed % 3 / 2, "logprobs": num_top}
            request = request_of(f"{name}:{kind}", seed, versions.get(name), **sampling)
            request.scores_prompt = num_top is not None and seed % 2 == 1
            requests.append((name, request))
    for seed, name in enumerate([*models] * 3):
        sampling = {"temperature": 0.8, "logit_bias": ((7, 5.0),), "logprobs": seed % 2 or None}
        sampling["prompt_logprobs"] = [0, 4, None][seed // 3]
        sampling["logprob_token_ids"] = (9, 200, 9, 4) if sampling["logprobs"] else ()
        request = request_of(f"{name}{seed}", seed, versions.get(name), **sampling)
        request.scores_prompt = sampling["prompt_logprobs"] is not None
        requests.append((name, request))
    outputs = outputs_of(engine, [request for _, request in requests])
    assert engine.stats().num_preemptions > 0
    for name, request in requests:
        rows = reference_logprobs(models[name], request.prompt_ids + request.output_ids)
        check_outputs(rows[len(request.prompt_ids) - 1 :], request, outputs[request.id])
        check_prompt(rows, request, outputs[request.id][0].prompt_logprobs)
        assert all(output.prompt_logprobs is None for output in outputs[request.id][1:])


def check_outputs(rows: torch.Tensor, request: Request, outputs: list[StepOutput]) -> None:
    num_top, named = request.sampling.logprobs, request.sampling.logprob_token_ids
    for row, output in zip(rows, outputs, strict=False):
        assert (output.logprobs is None) is (num_top is None)
        if output.logprobs is None or output.token_id is None:
            continue
        if not named:
            check_logprobs(row, output.token_id, output.logprobs, num_top or 0)
            continue
        names = dict.fromkeys((output.token_id, *named))
        assert [token for token, _ in output.logprobs.top] == [*names]
        expected = {token: float(row[token]) for token in names}
        assert dict(output.logprobs.top) == pytest.approx(expected, abs=1e-4)


def check_prompt(
    rows: torch.Tensor, request: Request, scored: tuple[TokenLogprobs, ...] | None
) -> None:
    ranked = request.sampling.prompt_logprobs
    assert (scored is not None) is request.scores_prompt
    assert len(scored or ()) == (len(request.prompt_ids) - 1) * request.scores_prompt
    for row, token, got in zip(rows, request.prompt_ids[1:], scored or (), strict=False):
        check_logprobs(row, token, got, max(ranked or 0, request.sampling.logprobs or 0))
        if ranked is not None:
            above, below = float(row[token]) + 1e-4, float(row[token]) - 1e-4
            assert got.rank is not None
            assert int((row > above).sum()) < got.rank <= int((row > below).sum())
