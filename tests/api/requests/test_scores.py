"""Requests for scores and rerankings become jobs with pairs, or are refused by a field's name."""

from typing import Any

import pytest
from translated_jobs import ADMISSION

from api.requests import score_pairs
from api.requests.embeddings import RESERVED_TOKENS
from api.requests.scores import INSTRUCTION, parse_rerank, parse_score, rerank_job, score_job
from api.schema.embeddings import MAX_INPUTS
from shared.errors import ErrorCode, JobFailed
from shared.protocol.codec import decode_job, encode_job
from shared.protocol.jobs import MAX_EMBEDDED, Endpoint, Job
from shared.protocol.scoring import ScoreKind, ScoringParams

PAIR: dict[str, Any] = {"text_1": "q", "text_2": "d"}
LABELLED: dict[str, Any] = {"query": "q", "items": ["a", "b"], "label_token_ids": [7, 8]}


def score(**fields: Any) -> Job:
    return score_job(parse_score({"model": "m", **fields}), ADMISSION)


def rerank(**fields: Any) -> Job:
    body = {"model": "m", "query": "q", "documents": ["a", "b"], **fields}
    return rerank_job(parse_rerank(body), ADMISSION)


def scoring_of(job: Job) -> ScoringParams:
    assert job.scoring is not None
    return job.scoring


@pytest.mark.parametrize(
    ("first", "second"),
    [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")],
)
def test_pairs_may_have_any_of_vllms_names(first: str, second: str) -> None:
    job = score(**{first: ["q"], second: ["a", "b"]})
    assert (job.endpoint, job.prompts) == (Endpoint.SCORES, ("a", "b"))
    scoring = scoring_of(job)
    assert (scoring.kind, scoring.firsts) == (ScoreKind.RELEVANCE, ("q",))
    assert scoring.fields == (first, second)
    assert scoring.instruction == INSTRUCTION
    assert [scoring.first(i) for i in range(2)] == ["q", "q"]


def test_each_text_may_have_its_own_first_text_and_be_an_object() -> None:
    job = score(text_1=["q", "r"], text_2=["a", {"text": "b", "id": 5}], instruction="find")
    assert job.prompts == ("a", "b")
    assert [scoring_of(job).first(i) for i in range(2)] == ["q", "r"]
    assert scoring_of(job).instruction == "find"


def test_labels_follow_texts_or_token_ids() -> None:
    job = score(**LABELLED, item_first=True)
    scoring = scoring_of(job)
    assert (scoring.kind, scoring.label_ids) == (ScoreKind.LABELS, (7, 8))
    assert (scoring.firsts, job.prompts, scoring.is_reversed) == (("q",), ("a", "b"), True)
    assert (job.sampling.max_tokens, job.num_choices) == (1, 2)
    ids = score(query=[1, 2], items=[[3], [4, 5]], label_token_ids=[7])
    assert (scoring_of(ids).firsts, ids.prompts) == (((1, 2),), ((3,), (4, 5)))
    assert decode_job(encode_job(ids)).scoring == ids.scoring


def test_a_likelihood_needs_no_token() -> None:
    job = score(**PAIR, scoring="likelihood")
    assert (job.sampling.max_tokens, scoring_of(job).kind) == (0, ScoreKind.LIKELIHOOD)


def test_a_reranking_keeps_what_its_answer_repeats() -> None:
    assert rerank().request == {"top_n": 2, "documents": ["a", "b"]}
    kept = rerank(top_n=1, return_documents=False, instruct="find", max_tokens_per_doc=9)
    assert kept.request == {"top_n": 1, "documents": None}
    scoring = scoring_of(kept)
    assert (scoring.instruction, scoring.max_document_tokens) == ("find", 9)
    assert scoring_of(rerank(max_tokens_per_doc=0)).max_document_tokens is None


def test_a_job_takes_up_few_sequences_and_is_charged_in_part() -> None:
    job = rerank(query="q" * 400, documents=["d" * 400] * 2000)
    assert (job.num_choices, job.num_sequences) == (2000, MAX_EMBEDDED)
    assert job.cost == RESERVED_TOKENS
    assert rerank(query="q" * 400).cost == 2 * (401 // 4)


SCORE_REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "text_1", "send exactly two fields"),
    ({"text_1": "q"}, "text_2", "send exactly two fields"),
    ({"queries": "q", "text_2": "d"}, "text_1", "send exactly two fields"),
    ({**PAIR, "data_1": "q"}, "text_1", "send exactly two fields"),
    ({"queries": "q", "items": [[1]]}, "items", "can only be token ids with label_token_ids"),
    ({"text_1": [], "text_2": "d"}, "text_1", "1 to 2048 texts"),
    ({"text_1": "q", "text_2": ["d"] * (MAX_INPUTS + 1)}, "text_2", "not 2049"),
    ({"text_1": ["q", "r"], "text_2": ["a", "b", "c"]}, "text_1", "has 2 texts"),
    ({"text_1": "q", "text_2": [5]}, "text_2", "must be a string"),
    ({"text_1": "q", "text_2": {"body": "d"}}, "text_2", "must be a string"),
    ({"text_1": None, "text_2": "d"}, "text_1", "send exactly two fields"),
    ({**PAIR, "scoring": "luck"}, "scoring", "relevance"),
    ({**PAIR, "scoring": "likelihood", "text_2": ["a", ""]}, "text_2", "empty"),
    ({**PAIR, "apply_softmax": True}, "apply_softmax", "label_token_ids"),
    ({**PAIR, "item_first": False}, "item_first", "label_token_ids"),
    ({**PAIR, "query": "q"}, "query", "send queries"),
    ({**PAIR, "instruction": "x" * 10_001}, "instruction", "10000 characters"),
    ({**PAIR, "max_tokens_per_doc": -1}, "max_tokens_per_doc", "greater than or equal to 0"),
    ({**PAIR, "stream": True}, "stream", "must be false"),
    ({**PAIR, "truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "max_tokens_per_doc"),
    ({**PAIR, "max_tokens_per_query": 5}, "max_tokens_per_query", "isn't supported"),
    ({**PAIR, "use_activation": False}, "use_activation", "isn't supported"),
    ({**PAIR, "chat_template": "x"}, "chat_template", "isn't supported"),
    ({**LABELLED, "items": None}, "items", "is required with label_token_ids"),
    ({**LABELLED, "query": None}, "query", "is required with label_token_ids"),
    ({**LABELLED, "query": ""}, "query", "empty"),
    ({**LABELLED, "query": ["a"]}, "query", "list of token ids"),
    ({**LABELLED, "query": []}, "query", "empty"),
    ({**LABELLED, "query": [1]}, "items", "all be texts or all be token ids"),
    ({**LABELLED, "items": ["a", [1]]}, "items", "all be texts or all be token ids"),
    ({**LABELLED, "items": ["a"] * (MAX_INPUTS + 1)}, "items", "at most 2048"),
    ({**LABELLED, "label_token_ids": []}, "label_token_ids", "at least 1"),
    ({**LABELLED, "label_token_ids": [1] * 129}, "label_token_ids", "at most 128"),
    ({**LABELLED, "label_token_ids": [-1]}, "label_token_ids", "greater than or equal to 0"),
    ({**LABELLED, "documents": ["a"]}, "documents", "send query and items"),
    ({**LABELLED, "scoring": "relevance"}, "scoring", "send query and items"),
    ({**LABELLED, "return_pooled_hidden_states": True}, "return_pooled_hidden_states", "isn't"),
]


@pytest.mark.parametrize(("fields", "param", "part"), SCORE_REFUSALS)
def test_a_bad_request_for_scores_is_refused(fields: dict[str, Any], param: str, part: str) -> None:
    with pytest.raises(JobFailed) as caught:
        score(**fields)
    error = caught.value.error
    assert error.status == 400
    assert (error.param or "").startswith(param)
    assert part in error.message, error.message
    assert param in error.message


@pytest.mark.parametrize(
    ("fields", "param", "part"),
    [
        ({"query": None}, "query", "must be a valid string"),
        ({"query": ""}, "query", "at least 1"),
        ({"query": ["q"]}, "query", "must be a valid string"),
        ({"documents": []}, "documents", "1 to 2048 texts"),
        ({"documents": None}, "documents", "must be a string"),
        ({"documents": [{"text": 5}]}, "documents", "must be a string"),
        ({"top_n": -1}, "top_n", "greater than or equal to 0"),
        ({"top_n": True}, "top_n", "valid integer"),
        ({"return_documents": "yes"}, "return_documents", "valid boolean"),
        ({"instruct": "a", "instruction": "b"}, "instruct", "only one"),
        ({"rank_fields": ["title"]}, "rank_fields", "isn't supported"),
        ({"stream": True}, "stream", "must be false"),
    ],
)
def test_a_bad_request_for_a_reranking_is_refused(
    fields: dict[str, Any], param: str, part: str
) -> None:
    with pytest.raises(JobFailed) as caught:
        rerank(**fields)
    error = caught.value.error
    assert (error.status, error.param) == (400, param)
    assert part in error.message, error.message


def test_neutral_values_of_other_fields_are_accepted() -> None:
    neutral = {"truncate_prompt_tokens": None, "use_activation": True, "max_tokens_per_query": 0}
    assert score(**PAIR, **neutral) == score(**PAIR)
    assert rerank(rank_fields=["text"]) == rerank()


def test_a_repeated_query_counts_in_each_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_pairs, "MAX_SIZE", 24)
    assert rerank(query="q" * 10, documents=["ab", "ab"])
    with pytest.raises(JobFailed) as caught:
        rerank(query="q" * 10, documents=["ab", "abc"])
    error = caught.value.error
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, "documents")
    assert "have 25 characters together, but at most 24" in error.message


def test_ids_that_cannot_fit_are_refused_before_they_are_queued() -> None:
    with pytest.raises(JobFailed) as caught:
        score(query=[1], items=[[1] * 1000], label_token_ids=[7])
    error = caught.value.error
    assert (error.code, error.param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, "items")
