"""Jobs for embeddings on the wire."""

from dataclasses import replace

import pytest
from queue_support import make_job

from shared.protocol.answers import AnswerSpec
from shared.protocol.codec import (
    decode_answer_spec,
    decode_job,
    encode_answer_spec,
    encode_job,
)
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.jobs import MAX_EMBEDDED, Endpoint

JOB = replace(
    make_job(),
    endpoint=Endpoint.EMBEDDINGS,
    messages=None,
    prompts=("a", (5, 6)),
    embedding=EmbeddingParams(pooling=Pooling.MEAN, normalize=False),
)


def test_a_job_for_embeddings_survives_the_wire() -> None:
    assert decode_job(encode_job(JOB)) == JOB


def test_the_answers_format_is_in_its_specification() -> None:
    spec = AnswerSpec.of(replace(JOB, encodes_base64=True))
    assert spec.encodes_base64
    assert decode_answer_spec(encode_answer_spec(spec), spec.id) == spec


@pytest.mark.parametrize(("num_inputs", "num_sequences"), [(1, 1), (2000, MAX_EMBEDDED)])
def test_a_job_occupies_a_bounded_number_of_sequences(num_inputs: int, num_sequences: int) -> None:
    assert replace(JOB, prompts=("a",) * num_inputs).num_sequences == num_sequences


@pytest.mark.parametrize(
    ("pooling", "positions"),
    [(Pooling.LAST, range(8, 9)), (Pooling.MEAN, range(9)), (Pooling.FIRST, range(1))],
)
def test_pooling_needs_these_positions(pooling: Pooling, positions: range) -> None:
    assert EmbeddingParams(pooling=pooling).positions(9) == positions
