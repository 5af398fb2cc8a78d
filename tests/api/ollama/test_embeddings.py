"""/api/embed and /api/embeddings."""

from typing import Any

import httpx
import pytest
from api_support import ScriptedWorker, error_of

from shared.protocol.embeddings import Pooling
from shared.protocol.results import Choice, FinishReason

EMBED, EMBEDDINGS = "/api/embed", "/api/embeddings"
FIRST, SECOND = "AACAPwAAAAA=", "AAAAAAAAgD8="
"""The embeddings 1, 0 and 0, 1 as float32 in base64."""


async def embedded(
    http: httpx.AsyncClient, worker: ScriptedWorker, path: str, body: dict[str, Any], *texts: str
) -> tuple[httpx.Response, Any]:
    """Send a request, answer its job with these embeddings, and return the response and the job."""
    posting, job = await worker.sent(http.post(path, json=body))
    choices = [Choice(text=text, finish=FinishReason.STOP, ids=()) for text in texts]
    await worker.finish(job, *choices)
    return await posting, job.job


@pytest.mark.parametrize("given", ["one", ["one", "two"]])
async def test_embeddings_of_texts(
    http: httpx.AsyncClient, worker: ScriptedWorker, given: str | list[str]
) -> None:
    body = {"model": "extract:latest", "input": given, "options": {"num_ctx": 9}}
    texts = [FIRST] if given == "one" else [FIRST, SECOND]
    reply, job = await embedded(http, worker, EMBED, body, *texts)
    answer = reply.json()
    assert answer.pop("total_duration") > 0
    answer.pop("load_duration", None)
    assert answer == {
        "model": "extract:latest",
        "embeddings": [[1.0, 0.0], [0.0, 1.0]][: len(texts)],
        "prompt_eval_count": 3,
    }
    assert (job.embedding.pooling, job.embedding.normalize) == (Pooling.LAST, True)
    assert job.sampling.truncate_prompt_tokens == 1000
    assert reply.headers["x-lorikeet-warning"] == "not used: options.num_ctx"
    stored = (await http.get(f"/v1/jobs/{job.id}")).json()["answer"]
    assert stored["embeddings"] == answer["embeddings"]


async def test_without_truncation_an_input_must_fit(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    body = {"model": "extract", "input": "one", "truncate": False, "dimensions": 2}
    _, job = await embedded(http, worker, EMBED, body, FIRST)
    assert job.sampling.truncate_prompt_tokens is None


async def test_the_older_route_returns_one_embedding_that_is_not_scaled(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    body = {"model": "extract", "prompt": "one"}
    reply, job = await embedded(http, worker, EMBEDDINGS, body, FIRST)
    assert reply.json() == {"embedding": [1.0, 0.0]}
    assert (job.prompts, job.embedding.normalize) == (("one",), False)


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (EMBED, {"input": []}, {"model": "extract", "embeddings": []}),
        (EMBED, {"input": ""}, {"model": "extract", "embeddings": []}),
        (EMBED, {}, {"model": "extract", "embeddings": []}),
        (EMBEDDINGS, {"prompt": ""}, {"embedding": []}),
        (EMBEDDINGS, {}, {"embedding": []}),
    ],
)
async def test_without_an_input_only_the_model_is_checked(
    http: httpx.AsyncClient, worker: ScriptedWorker, path: str, body: Any, answer: Any
) -> None:
    assert (await http.post(path, json={"model": "extract", **body})).json() == answer
    reply = await http.post(path, json={"model": "none", **body})
    assert error_of(reply) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (EMBED, {"input": [1]}, "input"),
        (EMBED, {"input": ["a", ""]}, "input"),
        (EMBED, {"input": 5}, "input"),
        (EMBED, {"input": "a", "dimensions": 3}, "dimensions"),
        (EMBED, {"input": "a", "keep_alive": []}, "keep_alive"),
        (EMBEDDINGS, {"prompt": ["a"]}, "prompt"),
    ],
)
async def test_a_bad_field_is_refused(
    http: httpx.AsyncClient, worker: ScriptedWorker, path: str, fields: Any, param: str
) -> None:
    reply = await http.post(path, json={"model": "extract", **fields})
    assert error_of(reply) == (400, "invalid_value", param)
    assert param in reply.json()["error"]
