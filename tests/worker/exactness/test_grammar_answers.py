"""Answers constrained by grammars, in mixed batches on the real engine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from engines import all_outputs_of, engine_of, load, outputs_of, random_prompt, tokens_of
from json_schemas import Schema, is_valid, random_schema, too_many_choices_later
from tiny import save_adapters, tiny_model, tiny_tokenizer

from shared.protocol.ids import AdapterVersion
from shared.protocol.results import FinishReason
from worker.engine.engine import NativeEngine
from worker.engine.grammar import TOO_COMPLEX, GrammarCompiler, json_source
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.model.loader import LoadedModel

NUM_SCHEMAS = 200
MAX_TOKENS = 1500
TOKENIZER = tiny_tokenizer()
EOS_ID: int = TOKENIZER.eos_token_id
COMPILER = GrammarCompiler(TOKENIZER, vocab_size=len(TOKENIZER), eos_ids={EOS_ID})
ADAPTERS = {
    "narrow": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
    "wide": {"r": 8, "target_modules": "all-linear"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return save_adapters(tmp_path_factory.mktemp("adapters"), ADAPTERS)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A model for one engine at a time."""
    return load(tiny_model(max_position_embeddings=2048))


def request_of(
    seed: int,
    schema: Schema | None,
    version: AdapterVersion | None = None,
    *,
    shown: list[int] | None = None,
    temperature: float = 1.0,
    max_tokens: int = MAX_TOKENS,
) -> Request:
    grammar = COMPILER.compile(json_source(json.dumps(schema))) if schema is not None else None
    return Request(
        id=RequestId(f"{seed}:{schema is not None}"),
        prompt_ids=random_prompt(seed, 12),
        version=version,
        sampling=ChoiceSampling(seed=seed, temperature=temperature),
        max_tokens=max_tokens,
        stop_ids=frozenset({EOS_ID}),
        grammar=grammar.start(shown or []) if grammar else None,
        output_ids=list(shown or []),
    )


@dataclass
class Answer:
    ids: list[int]
    finish: FinishReason | None = None

    @property
    def text(self) -> str:
        text: str = TOKENIZER.decode(self.ids, skip_special_tokens=True)
        return text


def answers(engine: NativeEngine, requests: list[Request]) -> dict[RequestId, Answer]:
    return {
        name: Answer(tokens_of(outputs), outputs[-1].finish)
        for name, outputs in outputs_of(engine, requests).items()
    }


@pytest.mark.slow
def test_every_answer_is_valid_under_its_schema_in_a_mixed_batch(
    loaded: LoadedModel, folders: Mapping[str, Path]
) -> None:
    engine, versions = engine_of(loaded, folders, num_blocks=1000)
    rotation = [None, versions["narrow"], versions["wide"]]
    schemas = {seed: random_schema(seed) for seed in range(NUM_SCHEMAS)}
    constrained = [request_of(seed, schema, rotation[seed % 3]) for seed, schema in schemas.items()]
    free = [request_of(seed, None, rotation[seed % 3], max_tokens=60) for seed in range(0, 200, 5)]
    answer_of = answers(engine, sorted(constrained + free, key=lambda r: int(r.id.split(":")[0])))
    for request, (seed, schema) in zip(constrained, schemas.items(), strict=True):
        answer = answer_of[request.id]
        assert answer.finish is FinishReason.STOP, (seed, schema, answer.text)
        assert is_valid(schema, answer.text), (seed, schema, answer.text)
    plain, _ = engine_of(loaded)
    bases = [request for request in free if request.version is None]
    unmixed = answers(
        plain, [request_of(int(r.id.split(":")[0]), None, max_tokens=60) for r in bases]
    )
    assert unmixed == {request.id: answer_of[request.id] for request in bases}


def test_an_answer_is_the_same_uninterrupted_preempted_or_resumed(loaded: LoadedModel) -> None:
    schemas = {seed: random_schema(seed) for seed in range(300, 312)}

    def requests() -> list[Request]:
        return [request_of(seed, schema) for seed, schema in schemas.items()]

    expected = answers(engine_of(loaded)[0], requests())
    tight, _ = engine_of(loaded, num_blocks=30)
    assert answers(tight, requests()) == expected
    assert tight.stats().num_preemptions > 0
    roomy, _ = engine_of(loaded)
    for seed, schema in schemas.items():
        complete = expected[request_of(seed, schema).id]
        half = complete.ids[: len(complete.ids) // 2]
        resumed = request_of(seed, schema, shown=half)
        rest = answers(roomy, [resumed])[resumed.id]
        assert half + rest.ids == complete.ids


def test_a_grammar_that_becomes_too_complex_fails_only_its_own_request(
    loaded: LoadedModel,
) -> None:
    engine, _ = engine_of(loaded)
    schema = too_many_choices_later()
    doomed, other = request_of(1, schema), request_of(2, None, max_tokens=50)
    outputs = all_outputs_of(engine, [doomed, other])
    assert outputs[doomed.id][-1].error == TOO_COMPLEX
    assert len(tokens_of(outputs[other.id])) == 50
