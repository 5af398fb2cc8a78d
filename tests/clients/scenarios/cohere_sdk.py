"""Scenarios of Cohere's client, which reads its URL and key from CO_API_URL and CO_API_KEY."""

import cohere
import pytest
from weather_chat import BASE, CALLER, QUESTION

DOCUMENTS = ["It is sunny in Osaka.", "Monitors are sold here.", "Rain falls in Kyoto."]


@pytest.mark.parametrize("model", [BASE, CALLER])
def test_the_client_of_version_2_reranks(model: str) -> None:
    client = cohere.ClientV2()
    ranked = client.rerank(model=model, query=QUESTION, documents=DOCUMENTS)
    scores = [each.relevance_score for each in ranked.results]
    assert scores == sorted(scores, reverse=True)
    assert sorted(each.index for each in ranked.results) == [0, 1, 2]
    first = client.rerank(
        model=model, query=QUESTION, documents=DOCUMENTS, top_n=1, max_tokens_per_doc=4096
    )
    assert [each.index for each in first.results] == [ranked.results[0].index]
    assert first.id.startswith("score-")


def test_the_client_of_version_1_gets_the_documents() -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    ranked = cohere.Client().rerank(
        model=BASE, query=QUESTION, documents=documents, top_n=2, return_documents=True
    )
    assert len(ranked.results) == 2
    for each in ranked.results:
        assert each.document is not None
        assert each.document.text == DOCUMENTS[each.index]


def test_errors_have_the_types_of_the_client() -> None:
    client = cohere.ClientV2()
    with pytest.raises(cohere.NotFoundError, match="absent"):
        client.rerank(model="absent", query=QUESTION, documents=DOCUMENTS)
    with pytest.raises(cohere.BadRequestError, match="documents"):
        client.rerank(model=BASE, query=QUESTION, documents=[])
