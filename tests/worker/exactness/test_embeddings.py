"""Embeddings equal the pooled last hidden states of transformers + PEFT, in mixed batches."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_requests import make_request
from engines import all_outputs_of, engine_of, greedy_request, load, random_prompt, run, tokens_of
from kinds import attention
from reference import models_of
from tiny import ARCHITECTURES, save_adapters, tiny_model

from shared.errors import ErrorCode
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.ids import AdapterVersion
from worker.engine.request import Request, StepOutput

RANKS = {"one": 8, "two": 20}
NAMES = ["base", *RANKS]
LENGTHS = (1, 5, 16, 17, 40, 90)
CASES = [(name, pooling) for name in NAMES for pooling in Pooling]
NUM_TOKENS = 12
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
        greedy_request(f"g{i}", random_prompt(i, 20 + i), NUM_TOKENS, versions.get(name))
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
    for i, (name, pooling) in enumerate(CASES * 2):
        prompt = random_prompt(100 + i, LENGTHS[i % len(LENGTHS)])
        normalize = i % 4 > 0
        request = embedding_request(
            f"e{i}", prompt, versions.get(name), pooling, normalize=normalize
        )
        wanted[f"e{i}"] = name, request
    first, *others = generating(versions)
    mixed = [first, *(request for _, request in wanted.values()), *others]
    outputs = all_outputs_of(engine, mixed)

    assert engine.stats().num_preemptions > 0
    assert {name: tokens_of(outputs[name]) for name in alone} == alone
    for adapter, model in models_of(folders, model_type).items():
        for id_, (name, request) in wanted.items():
            if name == adapter:
                assert request.embedding is not None
                reference = expected(model, request.prompt_ids, request.embedding)
                error = np.abs(vector_of(outputs[id_]) - reference).max()
                assert error < MAX_ERROR, f"{id_}: {request.embedding}, {error}"


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
