"""Scores and rerankings equal the probabilities of transformers, for the base and adapters."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queue_support import eventually
from served_tiny import BASE, NAMES, TinyModels

QUERY = "Which bird is small?"
DOCUMENTS = ["The wren is tiny.", "The swan is large, 你好.", "", "A wren  \n"]
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
TOLERANCE = {"abs": 1e-5, "rel": 1e-4}
LABELS = [70, 200, 9]


def question_ids(
    models: TinyModels, query: str, document: str, instruction: str = WEB_SEARCH
) -> list[int]:
    """Return the prompt that Qwen3-Reranker's authors build, in the base's chat template."""
    question = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    text = models.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    ids: list[int] = models.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def relevance(models: TinyModels, name: str, ids: Sequence[int]) -> float:
    """Return the probability of yes. The tiny tokenizer has a token for each byte."""
    yes, no = (models.tokenizer.get_vocab()[word] for word in "yn")
    return float(models.log_softmax(name, ids)[-1, [yes, no]].softmax(-1)[0])


def likelihood(models: TinyModels, name: str, first: str, second: str) -> float:
    ids, context = models.text_ids(first + second), models.text_ids(first)
    rows = models.log_softmax(name, ids)[:-1]
    scores = rows.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    return float(scores[len(context) - 1 :].sum())


async def answer_of(http: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def scores(http: httpx.AsyncClient, **body: Any) -> list[float]:
    answer = await answer_of(http, "/v1/score", **body)
    assert [each["index"] for each in answer["data"]] == list(range(len(answer["data"])))
    return [each["score"] for each in answer["data"]]


async def test_scores_in_a_mixed_batch_equal_transformers_and_those_of_single_pairs(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    found = await asyncio.gather(
        *(scores(http, model=name, text_1=QUERY, text_2=DOCUMENTS) for name in NAMES)
    )
    for name, together in zip(NAMES, found, strict=True):
        prompts = [question_ids(models, QUERY, document) for document in DOCUMENTS]
        expected = [relevance(models, name, ids) for ids in prompts]
        assert together == pytest.approx(expected, **TOLERANCE)
        alone = [
            (await scores(http, model=name, text_1=QUERY, text_2=each))[0] for each in DOCUMENTS
        ]
        assert alone == pytest.approx(together, **TOLERANCE)
    assert len({round(each[0], 3) for each in found}) == len(NAMES)


async def test_each_query_has_its_document_and_the_instruction_is_part_of_the_prompt(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    queries, instruction = ["one {x}", "two"], "Find {query} duplicates"
    found = await scores(
        http, model=BASE, queries=queries, documents=["a", "b"], instruction=instruction
    )
    prompts = [
        question_ids(models, query, document, instruction)
        for query, document in zip(queries, "ab", strict=True)
    ]
    expected = [relevance(models, BASE, ids) for ids in prompts]
    assert found == pytest.approx(expected, **TOLERANCE)


async def test_a_long_document_is_cut_to_the_given_number_of_tokens(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    long = {"model": BASE, "text_1": QUERY, "text_2": ["short", "ab你" + "好" * 400]}
    refused = await http.post("/v1/score", json=long)
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert (error["param"], error["code"]) == ("text_2", "context_length_exceeded")
    found = await scores(http, **long, max_tokens_per_doc=6)
    # Six bytes end inside the second character of three bytes, which is left out.
    prompts = [question_ids(models, QUERY, text) for text in ("short", "ab你")]
    expected = [relevance(models, BASE, ids) for ids in prompts]
    assert found == pytest.approx(expected, **TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
async def test_a_likelihood_is_the_sum_of_the_second_texts_logprobs(
    http: httpx.AsyncClient, models: TinyModels, name: str
) -> None:
    first, seconds = ["Once upon ", "", "你"], ["a time", "a time", "好 x"]
    found = await scores(http, model=name, text_1=first, text_2=seconds, scoring="likelihood")
    pairs = zip(first, seconds, strict=True)
    expected = [likelihood(models, name, *pair) for pair in pairs]
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("item_first", [False, True])
@pytest.mark.parametrize("is_text", [False, True])
async def test_labels_have_their_probabilities_in_the_vocabulary_or_among_themselves(
    http: httpx.AsyncClient, models: TinyModels, item_first: bool, is_text: bool
) -> None:
    query, items = "The capital is", [" Paris", " Rome"]
    body: dict[str, Any] = {"query": query, "items": items}
    if not is_text:
        plain = [models.tokenizer(text, add_special_tokens=False)["input_ids"] for text in items]
        body = {"query": models.text_ids(query), "items": plain}
    body |= {"model": NAMES[1], "label_token_ids": LABELS, "item_first": item_first}
    answer = await answer_of(http, "/v1/score", **body)
    assert answer["object"] == "scoring"
    rows = []
    for i in range(2):
        pair = [body["query"], body["items"][i]]
        joined = pair[1] + pair[0] if item_first else pair[0] + pair[1]
        ids = models.text_ids(joined) if is_text else joined
        rows.append(models.log_softmax(NAMES[1], ids)[-1, LABELS])
    for found, row in zip(answer["scores"], rows, strict=True):
        assert found == pytest.approx(row.exp().tolist(), **TOLERANCE)
    answer = await answer_of(http, "/v1/score", **body, apply_softmax=True)
    for found, row in zip(answer["scores"], rows, strict=True):
        assert found == pytest.approx(row.softmax(-1).tolist(), **TOLERANCE)
        assert math.fsum(found) == pytest.approx(1)


async def test_tokens_of_all_pairs_are_counted(http: httpx.AsyncClient, models: TinyModels) -> None:
    body = {"model": BASE, "query": QUERY, "documents": DOCUMENTS}
    usage = (await answer_of(http, "/v1/rerank", **body))["usage"]
    num_tokens = sum(len(question_ids(models, QUERY, each)) for each in DOCUMENTS)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (num_tokens, 0)
    assert usage["total_tokens"] == num_tokens


@given(
    documents=st.lists(st.sampled_from(["a", "b", "c", "longer", ""]), min_size=1, max_size=6),
    top_n=st.integers(0, 8),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a_reranking_has_the_most_relevant_documents_in_order(
    http: httpx.AsyncClient, documents: list[str], top_n: int
) -> None:
    body = {"model": BASE, "query": QUERY, "documents": documents}
    unsorted = await scores(http, model=BASE, text_1=QUERY, text_2=documents)
    results = (await answer_of(http, "/v1/rerank", **body, top_n=top_n))["results"]
    assert len(results) == min(top_n or len(documents), len(documents))
    found = [each["relevance_score"] for each in results]
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx(sorted(unsorted, reverse=True)[: len(found)], **TOLERANCE)
    indices = [each["index"] for each in results]
    assert len(set(indices)) == len(indices)
    for each in results:
        assert each["document"] == {"text": documents[each["index"]]}
        assert each["relevance_score"] == pytest.approx(unsorted[each["index"]], **TOLERANCE)


BACKGROUND: dict[str, dict[str, Any]] = {
    "score": {"text_1": QUERY, "text_2": DOCUMENTS},
    "rerank": {"query": QUERY, "documents": [{"text": "a"}, "b"], "top_n": 1},
}


@pytest.mark.parametrize("endpoint", BACKGROUND)
async def test_a_job_in_the_background_has_the_same_answer(
    http: httpx.AsyncClient, endpoint: str
) -> None:
    body = {"model": BASE, **BACKGROUND[endpoint]}
    expected = await answer_of(http, f"/v1/{endpoint}", **body)
    reply = await http.post(f"/v1/{endpoint}", json={**body, "background": True})
    assert reply.status_code == 202
    path = reply.headers["location"]

    async def finished() -> Any:
        job = (await http.get(path)).json()
        return job if job["state"] == "done" else None

    job = await eventually(finished)
    name = {"score": "data", "rerank": "results"}[endpoint]
    assert len(job[name]) == len(expected[name])
    for found, other in zip(job[name], expected[name], strict=True):
        key = {"score": "score", "rerank": "relevance_score"}[endpoint]
        assert found.pop(key) == pytest.approx(other.pop(key), **TOLERANCE)
        assert found == other
    stream = await http.get(f"{path}/stream")
    assert stream.status_code == 400
    assert stream.json()["error"]["message"].startswith("scores aren't streamed")
