"""Prompts that can't fit into the context are refused before a worker tokenizes them."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from api_support import BASE, ScriptedWorker, client_of, error_of
from queue_support import make_job

from api.app import create_app
from api.requests.prompt_length import JOINED_BYTES, check_length
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.jobs import Endpoint, Job, Prompt, SamplingParams
from shared.protocol.results import Choice, FinishReason
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.views.pool_views import PoolViews

MAX_LEN = 10
TOKEN_BYTES = 20
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
LARGE = "lorem ipsum " * 325_000
"""Text of 3.9 MB."""
FITTING = "lorem ipsum " * 6_000
"""Text of 72 kB, where the context holds at most 80 kB."""


def completion(*prompts: Prompt, max_tokens: int = 1) -> Job:
    return job(Endpoint.COMPLETIONS, max_tokens=max_tokens, prompts=prompts)


def chat(*turns: tuple[str, str]) -> Job:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return job(Endpoint.CHAT, max_tokens=None, messages=messages)


def job(endpoint: Endpoint, *, max_tokens: int | None, **fields: Any) -> Job:
    sampling = SamplingParams(seed=1, max_tokens=max_tokens)
    return make_job(endpoint=endpoint, sampling=sampling, **{"prompts": (), **fields})


def check(job: Job, max_token_bytes: int = TOKEN_BYTES) -> None:
    check_length(job, max_model_len=MAX_LEN, max_token_bytes=max_token_bytes)


def refusal(job: Job, max_token_bytes: int = TOKEN_BYTES) -> JobError:
    with pytest.raises(JobFailed) as caught:
        check(job, max_token_bytes)
    assert caught.value.error.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
    return caught.value.error


LONG = "x" * 999


@pytest.mark.parametrize(
    ("job", "max_token_bytes"),
    [
        (completion("x" * 180), TOKEN_BYTES),
        (completion("x" * 100, max_tokens=5), TOKEN_BYTES),
        (completion("x" * 150, "x" * 150), TOKEN_BYTES),
        (chat(("user", "x" * 180), ("assistant", "x" * 180), ("user", "x" * 180)), TOKEN_BYTES),
        # Other roles and whitespace don't count, nor bytes that may compose with the template.
        (chat(("system", LONG), ("assistant", LONG), ("user", "x" + " \n" * 999)), TOKEN_BYTES),
        (chat(("assistant", LONG)), TOKEN_BYTES),
        (chat(("user", "x" * (180 + JOINED_BYTES))), TOKEN_BYTES),
        # The size of tokens is unknown.
        (completion((1,) * 9), 0),
        (completion(LONG), 0),
        (chat(("user", LONG)), 0),
    ],
)
def test_a_prompt_that_may_fit_with_its_answer_is_accepted(job: Job, max_token_bytes: int) -> None:
    check(job, max_token_bytes)


@pytest.mark.parametrize(
    ("job", "param", "words"),
    [
        (completion("x" * 181), "prompt", "at least 10 tokens"),
        (
            *(completion("x" * 101, max_tokens=5), "prompt"),
            "you requested at least 11 tokens (at least 6 in the prompt, 5 ",
        ),
        (completion("x", "x" * 200), "prompt", "at least"),
        (
            *(chat(("user", "x" * 200), ("assistant", "x"), ("user", "x")), "messages"),
            "which leaves no room",
        ),
        (chat(("user", "x" * (181 + JOINED_BYTES))), "messages", "which leaves no room"),
    ],
)
def test_a_text_that_cannot_fit_is_refused(job: Job, param: str, words: str) -> None:
    error = refusal(job)
    assert (error.param, words in error.message) == (param, True)


def test_token_ids_are_counted_even_if_the_size_of_tokens_is_unknown() -> None:
    assert "at least" not in refusal(completion((1,) * 10), 0).message
    assert "11 tokens (6 in" in refusal(completion("x", (1,) * 6, max_tokens=5)).message


@pytest.fixture
async def direct(settings: ApiSettings, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a pool whose tokens cover up to 80 bytes."""
    await registry.set_base(replace(BASE, max_token_bytes=80))
    async with client_of(create_app(settings.model_copy(update={"max_body_bytes": 2**22}))) as http:
        yield http


def user(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


async def test_a_prompt_that_cannot_fit_is_refused_and_never_queued(
    direct: httpx.AsyncClient, views: PoolViews
) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        (CHAT, user("naïve " + LARGE), "messages"),
        (TEXT, {"prompt": ["short", LARGE]}, "prompt"),
        (TEXT, {"prompt": [1] * 1000}, "prompt"),
    ]
    for url, fields, param in cases:
        begun = time.process_time()
        response = await direct.post(url, json={"model": BASE.name, **fields})
        assert time.process_time() - begun < 5
        assert error_of(response) == (400, "context_length_exceeded", param)
        limit = "This model's maximum context length is 1000 tokens."
        assert response.json()["error"]["message"].startswith(limit)
    assert (await views.counts()).waiting == 0


@pytest.mark.parametrize(
    ("url", "fields"), [(CHAT, user(FITTING)), (TEXT, {"prompt": [FITTING, FITTING]})]
)
async def test_a_prompt_that_may_fit_is_left_to_the_worker(
    direct: httpx.AsyncClient, worker: ScriptedWorker, url: str, fields: dict[str, Any]
) -> None:
    request, job = await worker.sent(
        direct.post(url, json={"model": BASE.name, "max_tokens": 2, **fields})
    )
    for choice in range(job.job.num_choices):
        await worker.tokens(job, 0, (1,), "hello", FinishReason.STOP, choice=choice)
    await worker.finish(
        job, *[Choice(text="hello", finish=FinishReason.STOP, ids=(1,))] * job.job.num_choices
    )
    assert (await request).status_code == 200
