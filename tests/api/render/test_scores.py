"""Scores and rerankings are rendered of the log-probabilities that a worker has computed."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from translated_jobs import ADMISSION

from api.follow.transcript import ChoiceTranscript
from api.render.openai_chunks import complete_body
from api.requests.scores import parse_rerank, parse_score, rerank_job, score_job
from shared.protocol.answers import AnswerSpec
from shared.protocol.jobs import Job
from shared.protocol.results import FinishReason, Usage

USAGE = Usage(prompt_tokens=3, completion_tokens=0)
logprobs = st.floats(-9999, 0, width=32)
"""Log-probabilities. A worker replaces minus infinity by -9999."""


def body_of(job: Job, values: Sequence[Sequence[float]]) -> dict[str, Any]:
    choices = [
        ChoiceTranscript(parts=[json.dumps(each)], finish=FinishReason.STOP) for each in values
    ]
    return complete_body(AnswerSpec.of(job), choices, USAGE)


def score(**fields: Any) -> Job:
    return score_job(parse_score({"model": "m", **fields}), ADMISSION)


@given(
    values=st.lists(st.tuples(logprobs, logprobs), min_size=1, max_size=20),
    top_n=st.none() | st.integers(0, 25),
    returns=st.none() | st.booleans(),
)
def test_a_reranking_is_sorted_stable_and_cut(
    values: list[tuple[float, float]], top_n: int | None, returns: bool | None
) -> None:
    documents = [f"document {index}" for index in range(len(values))]
    request = {"model": "m", "query": "q", "documents": documents}
    request |= {"top_n": top_n, "return_documents": returns}
    body = body_of(rerank_job(parse_rerank(request), ADMISSION), values)
    results = body["results"]
    assert len(results) == min(top_n or len(values), len(values))
    scores = [1 / (1 + math.exp(min(no - yes, 700))) for yes, no in values]
    order = sorted(range(len(values)), key=lambda index: (-results_of(results, index), index))
    found = [each["index"] for each in results]
    if len(results) == len(values):
        assert found == order
    assert len(set(found)) == len(found)
    for each in results:
        assert each["relevance_score"] == pytest.approx(scores[each["index"]], abs=1e-9)
        assert 0 <= each["relevance_score"] <= 1
        shown = {"text": documents[each["index"]]}
        assert each.get("document") == (None if returns is False else shown)
    left_out = set(range(len(values))) - set(found)
    lowest = results[-1]["relevance_score"]
    assert all(scores[index] <= lowest + 1e-9 for index in left_out)


def results_of(results: list[dict[str, Any]], index: int) -> float:
    return next((each["relevance_score"] for each in results if each["index"] == index), -1.0)


def test_a_reranking_has_the_fields_of_jina_and_cohere() -> None:
    request = {"model": "m", "query": "q", "documents": ["a", "b"]}
    body = body_of(rerank_job(parse_rerank(request), ADMISSION), [[-3, 0], [0, -9999]])
    assert body["results"][0] == {"index": 1, "document": {"text": "b"}, "relevance_score": 1.0}
    assert body["id"] == f"score-{ADMISSION.id}"
    assert (body["model"], body["object"]) == ("m", "list")
    assert (body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]) == (3, 3)


def test_scores_have_vllms_fields() -> None:
    body = body_of(score(text_1="q", text_2=["a", "b"]), [[-1, -1], [-9999, 0]])
    assert body["data"] == [
        {"index": 0, "object": "score", "score": 0.5},
        {"index": 1, "object": "score", "score": 0.0},
    ]
    body = body_of(score(text_1="q", text_2="a", scoring="likelihood"), [[-12.5]])
    assert body["data"] == [{"index": 0, "object": "score", "score": -12.5}]


def test_labels_have_sglangs_fields() -> None:
    fields = {"query": "q", "items": "a", "label_token_ids": [5, 6]}
    halves = [math.log(0.5), math.log(0.25)]
    body = body_of(score(**fields), [halves])
    assert body["object"] == "scoring"
    assert body["scores"] == [pytest.approx([0.5, 0.25])]
    body = body_of(score(**fields, apply_softmax=True), [halves])
    assert body["scores"] == [pytest.approx([2 / 3, 1 / 3])]
