"""Messages that cross Redis, also between neighbouring releases; needs and capabilities of jobs."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from queue_support import make_job, tokens

from shared.errors import ProtocolMismatch
from shared.protocol.adapters import decode_adapter
from shared.protocol.answers import AnswerSpec
from shared.protocol.capabilities import (
    EVERYTHING,
    AdapterKind,
    Capabilities,
    Feature,
    Needs,
    decode_capabilities,
    decode_needs,
    encode_capabilities,
    why_unserved,
)
from shared.protocol.codec import (
    PROTOCOL_VERSION,
    decode_answer_spec,
    decode_events,
    decode_job,
    decode_result,
    decode_worker_info,
    encode_answer_spec,
    encode_events,
    encode_job,
    encode_request,
    encode_result,
    encode_worker_info,
)
from shared.protocol.embeddings import EmbeddingParams, Pooling
from shared.protocol.events import End, Retry
from shared.protocol.ids import job_id_of
from shared.protocol.jobs import MAX_EMBEDDED, Endpoint, JobState, SamplingParams, View
from shared.protocol.results import Result, Usage
from shared.protocol.scoring import ScoreKind, ScoringParams
from shared.protocol.workers import WorkerInfo

JOB = make_job(messages=({"role": "user", "content": "hi"},), tools=None)
EVENTS = [
    tokens(JOB, 0, [1], "a"),
    Retry(job=JOB.id, try_=1),
    End(job=JOB.id, try_=2, state=JobState.EXPIRED),
]
RESULT = Result(job=JOB.id, state=JobState.DONE, usage=Usage(prompt_tokens=1, completion_tokens=2))


def changed(raw: bytes, **changes: Any) -> bytes:
    return orjson.dumps({**orjson.loads(raw), **changes})


def test_messages_of_the_previous_protocol_version_are_decoded() -> None:
    last = PROTOCOL_VERSION - 1
    assert decode_job(changed(encode_job(JOB), v=last)) == JOB
    assert decode_events(changed(encode_events(EVENTS), v=last)) == EVENTS
    assert decode_result(changed(encode_result(RESULT), v=last)) == RESULT


@pytest.mark.parametrize("version", [PROTOCOL_VERSION + 1, PROTOCOL_VERSION - 2, None, "1"])
def test_messages_of_other_versions_are_refused(version: object) -> None:
    with pytest.raises(ProtocolMismatch, match="protocol version"):
        decode_job(changed(encode_job(JOB), v=version))


def test_fields_of_a_newer_release_are_dropped() -> None:
    wire = orjson.loads(encode_job(JOB))
    wire["sampling"]["novelty"] = 1
    assert decode_job(orjson.dumps({**wire, "novelty": 2})) == JOB
    result = orjson.loads(encode_result(RESULT))
    result["usage"]["novelty"] = 3
    assert decode_result(orjson.dumps({**result, "novelty": 4})) == RESULT


def test_fields_that_have_their_defaults_are_not_written() -> None:
    wire = orjson.loads(encode_job(JOB))
    assert wire.keys() == {
        *("v", "id", "endpoint", "model", "version", "sampling", "created_s", "deadline_ms"),
        *("cost", "reply_to", "messages", "prompts"),
    }
    assert wire["sampling"].keys() == {"seed"}


def test_fields_that_are_set_are_decoded_as_they_were_encoded() -> None:
    limits: dict[str, Any] = {"stop_token_ids": (1, 2), "allowed_token_ids": (3,)}
    limits |= {"logprob_token_ids": (4, 5), "prompt_logprobs": 0, "logit_bias": ((7, -1.5),)}
    sampling = SamplingParams(seed=2**63 - 1, bad_words=("a", "b"), includes_stop=True, **limits)
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sampled = replace(JOB, sampling=sampling, traceparent=traceparent, is_preemptible=True)
    for job in (sampled, EMBEDDING_JOB, SCORING_JOB, replace(JOB, images=("aW1hZ2U=", "aGk="))):
        assert decode_job(encode_job(job)) == job


def test_a_field_that_an_older_release_does_not_write_has_its_default() -> None:
    wire = orjson.loads(encode_job(replace(JOB, echo=True, fingerprint="fp", priority=3)))
    for name in ("echo", "fingerprint", "priority"):
        del wire[name]
    assert decode_job(orjson.dumps(wire)) == JOB


def test_the_view_of_a_job_is_only_in_the_specification_of_its_answer() -> None:
    job = replace(make_job(), view=View.RESPONSES, request={"input": ["hi"]})
    assert not {"view", "request"} & orjson.loads(encode_job(job)).keys()
    spec = AnswerSpec.of(job)
    raw = encode_answer_spec(spec)
    assert "request" not in orjson.loads(raw)
    assert decode_answer_spec(raw, job.id, request=encode_request(spec)) == spec
    assert decode_answer_spec(raw, job.id) == replace(spec, request=None)
    assert "view" not in orjson.loads(encode_answer_spec(AnswerSpec.of(make_job())))


INFO = WorkerInfo(
    model="m",
    device="cpu",
    dtype="float32",
    version="1",
    max_num_seqs=8,
    kv_tokens=100,
    weight_bytes=3,
    serves=Capabilities(kinds=frozenset(AdapterKind), features=frozenset(), max_rank=16),
)


def test_an_answer_in_the_format_of_an_api_that_only_a_newer_release_has_is_openais() -> None:
    spec = AnswerSpec.of(replace(make_job(), view=View.OLLAMA))
    assert decode_answer_spec(encode_answer_spec(spec), spec.id) == spec
    newer = encode_answer_spec(spec).replace(b'"ollama"', b'"newer"')
    assert decode_answer_spec(newer, spec.id) == replace(spec, view=View.OPENAI)


def test_unknown_fields_of_a_newer_worker_are_dropped() -> None:
    wire = orjson.loads(encode_worker_info(INFO)) | {"from_the_future": 1}
    assert decode_worker_info(orjson.dumps(wire)) == INFO


EMBEDDING_JOB = replace(
    make_job(),
    endpoint=Endpoint.EMBEDDINGS,
    messages=None,
    prompts=("a", (5, 6)),
    embedding=EmbeddingParams(pooling=Pooling.MEAN, normalize=False),
)


SCORING_JOB = replace(
    EMBEDDING_JOB,
    endpoint=Endpoint.SCORES,
    embedding=None,
    scoring=ScoringParams(
        kind=ScoreKind.LABELS,
        fields=("query", "items"),
        firsts=("a", (5, 6)),
        is_reversed=True,
        label_ids=(7, 8),
        max_document_tokens=9,
    ),
)


def test_the_answers_format_is_in_its_specification() -> None:
    spec = AnswerSpec.of(replace(EMBEDDING_JOB, encodes_base64=True))
    assert spec.encodes_base64
    assert decode_answer_spec(encode_answer_spec(spec), spec.id) == spec


@pytest.mark.parametrize(("num_inputs", "num_sequences"), [(1, 1), (2000, MAX_EMBEDDED)])
def test_a_job_occupies_a_bounded_number_of_sequences(num_inputs: int, num_sequences: int) -> None:
    assert replace(EMBEDDING_JOB, prompts=("a",) * num_inputs).num_sequences == num_sequences


@pytest.mark.parametrize(
    ("pooling", "positions"),
    [(Pooling.LAST, range(8, 9)), (Pooling.MEAN, range(9)), (Pooling.FIRST, range(1))],
)
def test_pooling_needs_these_positions(pooling: Pooling, positions: range) -> None:
    assert EmbeddingParams(pooling=pooling).positions(9) == positions


@pytest.mark.parametrize("given", ["3f0c", "chatcmpl-3f0c", "cmpl-3f0c"])
def test_a_job_is_named_by_its_own_id_or_by_its_answers(given: str) -> None:
    assert job_id_of(given) == "3f0c"


PLAIN = Capabilities(kinds=frozenset(), features=frozenset(), max_rank=16)
SOME = Capabilities(
    kinds=frozenset({AdapterKind.DORA, AdapterKind.BIAS}),
    features=frozenset({Feature.EMBEDDINGS}),
    max_rank=None,
)
ENTRY = {
    "name": "a",
    "version": "a@1",
    "digest": "1",
    "weights_digest": "1",
    "source": "/a",
    "rank": "8",
    "num_bytes": "1",
    "created_s": "0",
    "state": "ready",
    "kinds": "",
    "reasoning": "",
    "tool_form": "",
}


@pytest.mark.parametrize(
    ("capabilities", "text"),
    [(EVERYTHING, ""), (PLAIN, ";;16"), (SOME, "bias,dora;embeddings;")],
)
def test_the_text_form_is_decoded_again(capabilities: Capabilities, text: str) -> None:
    assert encode_capabilities(capabilities) == text
    assert decode_capabilities(text) == capabilities


def test_kinds_of_later_releases_are_left_out() -> None:
    assert decode_capabilities("bias,dora,new;embeddings;") == SOME
    assert decode_needs("new;;8") == Needs(rank=8)
    assert decode_adapter({**ENTRY, "kinds": "dora,new"}).kinds == {AdapterKind.DORA}


def test_without_workers_or_with_one_that_serves_it_nothing_is_unserved() -> None:
    needs = Needs(kinds=frozenset({AdapterKind.DORA}), rank=64)
    assert why_unserved("adapter a", needs, []) is None
    assert why_unserved("adapter a", needs, [PLAIN, SOME]) is None


@pytest.mark.parametrize("kind", AdapterKind)
def test_the_reason_names_each_kind(kind: AdapterKind) -> None:
    reason = why_unserved("adapter a", Needs(kinds=frozenset({kind}), rank=8), [PLAIN])
    assert reason is not None
    assert "no live worker of this pool serves" in reason
    assert why_unserved("a", Needs(kinds=frozenset({kind})), [PLAIN, EVERYTHING]) is None


def test_the_reason_names_the_largest_rank_that_is_served() -> None:
    workers = [PLAIN, replace(PLAIN, max_rank=32)]
    reason = why_unserved("adapter a", Needs(rank=64), workers)
    assert reason == (
        "adapter a has rank 64, and no live worker of this pool serves ranks above 32: start one "
        "with --engine native"
    )


@pytest.mark.parametrize(
    ("fields", "features"),
    [
        ({}, set()),
        ({"embedding": EmbeddingParams(pooling=Pooling.MEAN)}, {Feature.EMBEDDINGS}),
        ({"sampling": SamplingParams(seed=1, logprob_token_ids=(5,))}, {Feature.LISTED_LOGPROBS}),
        ({"images": ("aW1hZ2U=",)}, {Feature.IMAGES}),
    ],
)
def test_a_job_has_the_features_that_not_every_engine_serves(
    fields: dict[str, Any], features: set[Feature]
) -> None:
    assert make_job(**fields).features == features
