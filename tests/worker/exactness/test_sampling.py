"""Penalties, biases, logprobs and embeddings of the engine follow their definitions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_requests import make_request
from engines import (
    all_outputs_of,
    engine_of,
    greedy_request,
    load,
    outputs_of,
    random_prompt,
    run,
    tokens_of,
)
from kinds import attention
from reference import MAX_GAP, models_of
from reference_sampler import adjusted_logits
from tiny import ARCHITECTURES, save_adapters, tiny_model

from shared.errors import ErrorCode
from shared.protocol.embeddings import EmbeddingParams, Pooling
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


RANKS = {"one": 8, "two": 20}
NAMES = ["base", *RANKS]
LENGTHS = (1, 5, 16, 17, 40, 90)
POOLED = [(name, pooling) for name in NAMES for pooling in Pooling]
MAX_ERROR = 1e-5


def embedding_request(
    name: str,
    prompt: Sequence[int],
    version: AdapterVersion | None,
    pooling: Pooling = Pooling.LAST,
    *,
    normalize: bool = True,
) -> Request:
    """Return a request for the embedding of `prompt`."""
    embedding = EmbeddingParams(pooling=pooling, normalize=normalize)
    return make_request(name, prompt, version=version, max_tokens=0, embedding=embedding)


def generating(versions: Mapping[str, AdapterVersion]) -> list[Request]:
    """Return a request for tokens of each model."""
    return [
        greedy_request(f"g{i}", random_prompt(i, 20 + i), 12, versions.get(name))
        for i, name in enumerate(NAMES)
    ]


def vector_of(outputs: Sequence[StepOutput]) -> np.ndarray[Any, Any]:
    (output,) = outputs
    assert output.error is None
    assert output.embedding is not None
    return np.frombuffer(output.embedding, "<f4")


@torch.inference_mode()
def expected(model: Any, prompt: Sequence[int], params: EmbeddingParams) -> np.ndarray[Any, Any]:
    """Return the embedding that transformers computes, in float32."""
    decoder = getattr(model, "get_base_model", lambda: model)().base_model
    states = decoder(input_ids=torch.tensor([list(prompt)])).last_hidden_state[0]
    rows = {Pooling.LAST: states[-1], Pooling.MEAN: states.mean(0), Pooling.FIRST: states[0]}
    vector = rows[params.pooling]
    return (torch.nn.functional.normalize(vector, dim=0) if params.normalize else vector).numpy()


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_embeddings_equal_the_reference_beside_running_generations(
    model_type: str, tmp_path: Path
) -> None:
    modules = attention(model_type)
    configs = {name: {"r": rank, "target_modules": modules} for name, rank in RANKS.items()}
    folders = save_adapters(tmp_path, configs, model_type)
    loaded = load(tiny_model(model_type))
    engine, versions = engine_of(loaded, folders)
    alone = run(engine, generating(versions))

    engine, versions = engine_of(loaded, folders, num_blocks=24, budget=23)
    wanted = {}
    for i, (name, pooling) in enumerate(POOLED * 2):
        prompt = random_prompt(100 + i, LENGTHS[i % len(LENGTHS)])
        normalize = i % 4 > 0
        request = embedding_request(
            f"e{i}", prompt, versions.get(name), pooling, normalize=normalize
        )
        wanted[f"e{i}"] = name, request
    first, *others = generating(versions)
    mixed = [first, *(request for _, request in wanted.values()), *others]
    outputs = all_outputs_of(engine, mixed)

    assert {name: tokens_of(outputs[name]) for name in alone} == alone
    for adapter, model in models_of(folders, model_type).items():
        for id_, (name, request) in wanted.items():
            if name == adapter:
                assert request.embedding is not None
                reference = expected(model, request.prompt_ids, request.embedding)
                error = np.abs(vector_of(outputs[id_]) - reference).max()
                assert error < MAX_ERROR, f"{id_}: {request.embedding}, {error}"


@pytest.mark.parametrize("pooling", Pooling)
def test_an_embedding_is_the_same_after_a_preemption(loaded: LoadedModel, pooling: Pooling) -> None:
    def requests() -> list[Request]:
        prompts = [random_prompt(seed, 100) for seed in range(3)]
        return [embedding_request(str(i), ids, None, pooling) for i, ids in enumerate(prompts)]

    engine, _ = engine_of(loaded)
    alone = {each.id: vector_of(all_outputs_of(engine, [each])[each.id]) for each in requests()}
    engine, _ = engine_of(loaded, num_blocks=15, budget=24)
    outputs = all_outputs_of(engine, [greedy_request("g", random_prompt(9, 14), 120), *requests()])
    assert engine.stats().num_preemptions > 0
    for id_, vector in alone.items():
        assert np.abs(vector_of(outputs[id_]) - vector).max() < MAX_ERROR


def test_only_pooling_of_the_last_token_reuses_a_cached_prefix() -> None:
    engine, _ = engine_of(load(tiny_model("llama")))
    prompt = random_prompt(1, 64)
    run(engine, [greedy_request("g", prompt, 2)])
    num_cached = {}
    for pooling in Pooling:
        (output,) = all_outputs_of(engine, [embedding_request("e", prompt, None, pooling)])["e"]
        num_cached[pooling] = output.num_cached_tokens
    assert num_cached[Pooling.LAST] >= 48
    assert num_cached[Pooling.MEAN] == num_cached[Pooling.FIRST] == 0


def test_a_prompt_may_fill_the_context_but_not_exceed_it() -> None:
    engine, _ = engine_of(load(tiny_model("llama")), num_blocks=4)
    longest = random_prompt(1, engine.max_model_len)
    outputs = all_outputs_of(
        engine,
        [
            embedding_request("fits", longest, None),
            embedding_request("exceeds", [*longest, 7], None),
        ],
    )
    assert outputs["fits"][0].embedding
    (refused,) = outputs["exceeds"]
    assert refused.error.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
    assert engine.stats().kv_blocks_free == 4
