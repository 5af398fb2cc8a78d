"""/generate and /abort_request, in SGLang's format, while a test plays the worker.

The requests are those that the rollout code of trainers sends:
- slime: slime/rollout/sglang_rollout.py and slime/agent/adapters/common.py
- AReaL: areal/engine/sglang_remote.py
- verl: verl/workers/rollout/sglang_rollout/http_server_engine.py and async_sglang_server.py
- miles: miles/rollout/sglang_rollout.py and miles/ray/multi_lora/backend.py
"""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from api_support import BASE, RunningApp, ScriptedWorker, error_of
from key_support import bearer, new_key
from queue_support import eventually, tokens
from raw_client import with_settings
from sse_events import sse_events

from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import ClaimedJob, JobState, View
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason
from shared.store.access.key_store import KeyStore

URL = "/generate"
SLIME = {
    "sampling_params": {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "max_new_tokens": 8,
        "stop": None,
        "stop_token_ids": None,
        "skip_special_tokens": True,
        "no_stop_trim": True,
        "spaces_between_special_tokens": False,
    },
    "return_logprob": True,
    "input_ids": [5, 6, 7],
}
AREAL = {
    "input_ids": [5, 6, 7],
    "image_data": None,
    "sampling_params": {
        "top_p": 1.0,
        "top_k": 100,
        "max_new_tokens": 8,
        "temperature": 0.0,
        "stop_token_ids": [2],
        "ignore_eos": False,
        "skip_special_tokens": True,
        "frequency_penalty": 0.0,
        "sampling_seed": 4,
    },
    "return_logprob": True,
    "stream": False,
    "lora_path": "extract",
}
VERL = {
    "rid": "r 1",
    "input_ids": [5, 6, 7],
    "sampling_params": {"max_new_tokens": 8, "repetition_penalty": 1.0},
    "return_logprob": True,
    "logprob_start_len": 1,
    "top_logprobs_num": 2,
    "image_data": None,
    "lora_path": "extract",
}
MILES = {**SLIME, "lora_path": "extract", "rid": "extract::1", "extra_key": "extract:v2"}
NO_TOKENS = {"max_new_tokens": 0}
PROMPT_IDS = (5, 6, 7)
SCORES = (
    '[null,{"6":{"logprob":-0.5,"rank":1,"decoded_token":"b"},'
    '"9":{"logprob":-1.5,"rank":2,"decoded_token":"d"}},'
    '{"7":{"logprob":-3.5,"rank":3,"decoded_token":"c"},'
    '"9":{"logprob":-0.25,"rank":1,"decoded_token":"d"},'
    '"8":{"logprob":-0.75,"rank":2,"decoded_token":"e"}}]'
)


def scored(token_id: int, logprob: float) -> TokenLogprob:
    return TokenLogprob(token=f"token_id:{token_id}", logprob=logprob, bytes=None)


def position(token_id: int, logprob: float, *top: TokenLogprob) -> PositionLogprobs:
    return PositionLogprobs(chosen=scored(token_id, logprob), top=top, offset=0)


CANCELLED = JobError(code=ErrorCode.CANCELLED, message="Aborted.")
ANSWER = Choice(
    text="hello",
    finish=FinishReason.STOP,
    ids=(1, 2),
    logprobs=(position(1, -0.5), position(2, -1.0)),
    prompt_ids=PROMPT_IDS,
)


async def answered(
    http: httpx.AsyncClient, worker: ScriptedWorker, body: Any, *choices: Choice
) -> tuple[Any, ClaimedJob]:
    """Send a request, end its job with the choices, and return the body of the answer."""
    posting, job = await worker.sent(http.post(URL, json=body))
    await worker.finish(job, *(choices or (ANSWER,)))
    reply = await posting
    assert reply.status_code == 200, reply.text
    return reply.json(), job


async def aborts_one(http: httpx.AsyncClient) -> bool:
    reply = await http.post("/abort_request", json={"abort_all": True})
    return bool(reply.json()["num_aborted"])


async def test_slime_s_request(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    body, job = await answered(http, worker, SLIME)
    assert body == {
        "text": "hello",
        "output_ids": [1, 2],
        "meta_info": {
            "id": job.job.id,
            "finish_reason": {"type": "stop", "matched": 2},
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "cached_tokens": 0,
            "weight_version": BASE.version,
            "output_token_logprobs": [[-0.5, 1, None], [-1.0, 2, None]],
            "output_token_logprobs_length": 2,
            "input_token_logprobs": [],
        },
    }
    sampling = job.job.sampling
    assert (job.job.prompts, job.job.model) == (((5, 6, 7),), BASE.name)
    assert (sampling.max_tokens, sampling.includes_stop, sampling.logprobs) == (8, True, 0)
    assert (sampling.tokens_as_ids, sampling.reports_ids, sampling.prompt_logprobs) == (
        *(True, True),
        None,
    )


async def test_areal_s_request(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    body, job = await answered(http, worker, AREAL)
    assert body["meta_info"]["finish_reason"] == {"type": "stop", "matched": 2}
    assert body["meta_info"]["weight_version"] == job.job.version == "extract@111111111111"
    sampling = job.job.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0.0, 100, 4)
    assert (sampling.stop_token_ids, sampling.includes_stop) == ((2,), False)


async def test_verl_s_request_with_logprobs_of_the_prompt(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    top = scored(4, -0.1), scored(1, -0.5)
    answer = replace(
        ANSWER,
        logprobs=(position(1, -0.5, *top), position(2, -1.0, *top)),
        prompt_scores=SCORES,
    )
    body, job = await answered(http, worker, VERL, answer)
    meta = body["meta_info"]
    assert meta["id"] == "r 1"
    assert meta["input_token_logprobs"] == [[None, 6, None], [-3.5, 7, None]]
    assert meta["input_top_logprobs"] == [None, [[-0.25, 9, None], [-0.75, 8, None]]]
    assert meta["output_top_logprobs"] == [[[-0.1, 4, None], [-0.5, 1, None]]] * 2
    assert (job.job.sampling.logprobs, job.job.sampling.prompt_logprobs) == (2, 2)


async def test_miles_request_names_the_fields_that_have_no_effect(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    reply, job = await worker.serve(http.post(URL, json=MILES))
    assert reply.headers["x-lorikeet-warning"] == "not used: extra_key"
    assert reply.json()["meta_info"]["id"] == "extract::1"
    assert job.job.rid == "extract::1"


async def test_texts_of_logprobs(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    named = tuple(
        replace(each, chosen=replace(each.chosen, token=text))
        for each, text in zip(ANSWER.logprobs, ("hel", "lo"), strict=True)
    )
    asked = {"return_logprob": True, "return_text_in_logprobs": True, "logprob_start_len": 0}
    answer = replace(ANSWER, logprobs=named, prompt_scores=SCORES)
    body, job = await answered(http, worker, {"text": "hi", **asked}, answer)
    meta = body["meta_info"]
    assert meta["output_token_logprobs"] == [[-0.5, 1, "hel"], [-1.0, 2, "lo"]]
    assert meta["input_token_logprobs"] == [[None, 5, None], [-0.5, 6, "b"], [-3.5, 7, "c"]]
    assert not job.job.sampling.tokens_as_ids


async def test_without_new_tokens_only_the_prompt_is_scored(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    asked = {"text": "hi", "return_logprob": True, "logprob_start_len": 0}
    nothing = replace(ANSWER, text="", finish=FinishReason.LENGTH, ids=(), logprobs=())
    answer = replace(nothing, prompt_scores=SCORES)
    body, job = await answered(http, worker, asked | {"sampling_params": NO_TOKENS}, answer)
    assert [entry[:2] for entry in body["meta_info"]["input_token_logprobs"]] == [
        [None, 5],
        [-0.5, 6],
        [-3.5, 7],
    ]
    assert (job.job.sampling.max_tokens, job.job.echo, body["text"]) == (0, False, "")


async def test_logprobs_of_listed_tokens(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    asked = {"input_ids": [5], "return_logprob": True, "token_ids_logprob": [9, 1]}
    own, other = scored(1, -0.5), scored(9, -2.0)
    answer = replace(ANSWER, logprobs=(position(1, -0.5, own, other),), ids=(1,))
    body, job = await answered(http, worker, asked, answer)
    assert body["meta_info"]["output_token_ids_logprobs"] == [[[-2.0, 9, None], [-0.5, 1, None]]]
    assert job.job.sampling.logprob_token_ids == (9, 1)


async def test_the_answer_to_a_list_is_a_list(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = {
        "text": ["hi", "ho"],
        "sampling_params": [{"n": 2}, {"n": 2}],
        "lora_path": ["extract"] * 2,
        "rid": "r",
    }
    body, job = await answered(http, worker, request, *[ANSWER] * 4)
    assert [each["meta_info"]["id"] for each in body] == ["r_0", "r_1", "r_2", "r_3"]
    assert "cached_tokens" not in body[0]["meta_info"]
    assert (job.job.prompts, job.job.sampling.n, job.job.model) == (("hi", "ho"), 2, "extract")
    (single,), _ = await answered(http, worker, {"input_ids": [[5, 6, 7]]})
    assert single["output_ids"] == [1, 2]
    stored = (await http.get(f"/v1/jobs/{job.job.id}")).json()
    assert stored["answer"] == body


async def test_defaults_are_sglang_s(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    _, job = await answered(http, worker, {"text": "hi"})
    assert (job.job.sampling.max_tokens, job.job.sampling.logprobs) == (128, None)
    _, job = await answered(
        http, worker, {"text": "hi", "sampling_params": {"logit_bias": {"7": 2}}}
    )
    assert job.job.sampling.logit_bias == ((7, 2.0),)
    _, job = await answered(
        http, worker, {"text": "hi", "sampling_params": {"max_new_tokens": None}}
    )
    assert job.job.sampling.max_tokens is None


@pytest.mark.parametrize(
    ("sampling", "found"),
    [
        ({"json_schema": '{"type": "object"}'}, ("json_schema", '{"type":"object"}')),
        ({"regex": "a+"}, ("regex", "a+")),
        ({"ebnf": 'root ::= "a"'}, ("grammar", 'root ::= "a"')),
    ],
)
async def test_constraints(
    http: httpx.AsyncClient, worker: ScriptedWorker, sampling: Any, found: tuple[str, str]
) -> None:
    _, job = await answered(http, worker, {"text": "hi", "sampling_params": sampling})
    assert getattr(job.job.sampling, found[0]) == found[1]


@pytest.mark.parametrize(
    ("choice", "sampling", "reason"),
    [
        (ANSWER, {"stop": ["x"]}, {"type": "stop", "matched": 2}),
        (replace(ANSWER, stop="END"), {"stop": ["END"]}, {"type": "stop", "matched": "END"}),
        (replace(ANSWER, stop=7), {"stop_token_ids": [7]}, {"type": "stop", "matched": 7}),
        (replace(ANSWER, finish=FinishReason.LENGTH), {}, {"type": "length", "length": 2}),
    ],
)
async def test_finish_reasons(
    http: httpx.AsyncClient, worker: ScriptedWorker, choice: Choice, sampling: Any, reason: Any
) -> None:
    body, _ = await answered(http, worker, {"text": "hi", "sampling_params": sampling}, choice)
    assert body["meta_info"]["finish_reason"] == reason


async def test_each_event_of_a_stream_has_the_whole_answer_so_far(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    posting, job = await worker.sent(http.post(URL, json={**SLIME, "stream": True}))
    for index, (token_id, text) in enumerate(((1, "he"), (2, "llo"))):
        is_last = index == 1
        event = tokens(
            *(job.job, index, (token_id,), text),
            logprobs=(ANSWER.logprobs[index],),
            prompt_ids=PROMPT_IDS,
            finish=FinishReason.STOP if is_last else None,
        )
        await worker.queue.publish(worker.id, {job.job.reply_to: [event]})
    await worker.finish(job, ANSWER)
    *chunks, done = sse_events((await posting).text)
    assert done.data == "[DONE]"
    first, last = chunks[0].json, chunks[-1].json
    assert (last["text"], last["output_ids"]) == ("hello", [1, 2])
    assert last["meta_info"]["output_token_logprobs"] == [[-0.5, 1, None], [-1.0, 2, None]]
    assert last["meta_info"]["finish_reason"] == {"type": "stop", "matched": 2}
    assert first["meta_info"]["prompt_tokens"] == 3
    if len(chunks) == 2:  # the tokens may have arrived together
        assert (first["text"], first["output_ids"]) == ("he", [1])
        assert first["meta_info"]["finish_reason"] is None


async def test_a_stream_of_a_list_names_the_answer(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = {"text": ["hi", "ho"], "stream": True}
    posting, job = await worker.sent(http.post(URL, json=request))
    await worker.finish(job, ANSWER, replace(ANSWER, text="bye"))
    *chunks, _ = sse_events((await posting).text)
    last = {chunk.json["index"]: chunk.json for chunk in chunks}
    assert [last[index]["text"] for index in (0, 1)] == ["hello", "bye"]
    assert all(each["meta_info"]["finish_reason"] for each in last.values())


async def test_the_events_of_a_long_answer_are_few(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    num = 900
    posting, job = await worker.sent(
        http.post(
            URL, json={"text": "hi", "stream": True, "sampling_params": {"max_new_tokens": num}}
        )
    )
    for index in range(num):
        await worker.tokens(job, index, (index,), "x")
    ids = tuple(range(num))
    await worker.finish(job, Choice(text="x" * num, finish=FinishReason.LENGTH, ids=ids))
    *chunks, _ = sse_events((await posting).text)
    sizes = [len(chunk.json["output_ids"]) for chunk in chunks]
    assert sizes == sorted(sizes)
    assert sizes[-1] == num
    assert sum(sizes) < 64 * 2 * num


REFUSED: list[tuple[Any, str]] = [
    ({}, "text"),
    ({"text": "a", "input_ids": [1]}, "text"),
    ({"text": [1]}, "text"),
    ({"text": ""}, "text"),
    ({"input_ids": "a"}, "input_ids"),
    ({"input_ids": [1, -1]}, "input_ids"),
    ({"input_ids": [1] * 2000}, "input_ids"),
    ({"text": "a", "lora_path": "nobody"}, "lora_path"),
    ({"text": ["a", "b"], "lora_path": ["extract", None]}, "lora_path"),
    ({"text": ["a", "b"], "sampling_params": [{"n": 1}, {"n": 2}]}, "sampling_params"),
    ({"text": "a", "sampling_params": {"max_new_tokens": -1}}, "sampling_params.max_new_tokens"),
    ({"text": "a", "sampling_params": {"temperature": -1}}, "sampling_params.temperature"),
    ({"text": "a", "sampling_params": {"min_new_tokens": 200}}, "sampling_params.min_new_tokens"),
    ({"text": "a", "sampling_params": {"stop_regex": "x"}}, "sampling_params.stop_regex"),
    ({"text": "a", "sampling_params": {"n": 129}}, "sampling_params.n"),
    ({"text": ["a"] * 3, "sampling_params": {"n": 128}}, "text"),
    (
        {"text": "a", "sampling_params": {"regex": "a", "ebnf": "b"}},
        "sampling_params.ebnf",
    ),
    (
        {"text": "a", "sampling_params": {"custom_params": {"return_top_p_token_ids": True}}},
        "sampling_params.custom_params",
    ),
    ({"text": "a", "image_data": "x"}, "image_data"),
    ({"text": "a", "return_hidden_states": True}, "return_hidden_states"),
    ({"text": "a", "return_routed_experts": True}, "return_routed_experts"),
    ({"text": "a", "return_logprob": "yes"}, "return_logprob"),
    ({"text": "a", "return_logprob": True, "top_logprobs_num": 21}, "top_logprobs_num"),
    ({"input_ids": [1], "return_logprob": True, "logprob_start_len": 2}, "logprob_start_len"),
    (
        {"text": "a", "return_logprob": True, "logprob_start_len": 0, "stream": True},
        "logprob_start_len",
    ),
    (
        {"text": "a", "return_logprob": True, "top_logprobs_num": 1, "token_ids_logprob": [1]},
        "token_ids_logprob",
    ),
    (
        {"text": "a", "return_logprob": True, "top_logprobs_num": 1}
        | {"return_text_in_logprobs": True},
        "return_text_in_logprobs",
    ),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
async def test_a_refusal_names_the_field(
    http: httpx.AsyncClient, worker: ScriptedWorker, body: Any, param: str
) -> None:
    reply = await http.post(URL, json=body)
    status, _, named = error_of(reply)
    assert (status in (400, 404), named) == (True, param), reply.text


async def test_unknown_fields_are_listed_or_refused(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    body = {"text": "a", "colour": 1, "sampling_params": {"temprature": 1}}
    reply, _ = await worker.serve(http.post(URL, json=body))
    assert reply.headers["x-lorikeet-warning"] == "not used: colour, sampling_params.temprature"
    reply = await http.post(URL, json=body, headers={"prefer": "handling=strict"})
    assert error_of(reply) == (400, "unknown_parameter", "colour")


async def test_an_aborted_answer_ends_with_what_was_generated(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    posting = asyncio.create_task(http.post(URL, json={**SLIME, "rid": "one"}))
    job = await worker.take()
    event = tokens(*(job.job, 0, (1,), "he"), logprobs=ANSWER.logprobs[:1], prompt_ids=PROMPT_IDS)
    await worker.queue.publish(worker.id, {job.job.reply_to: [event]})
    aborted = await http.post("/abort_request", json={"rid": "one"})
    assert aborted.json() == {"num_aborted": 1}
    assert (await worker.mail()).job == job.job.id
    await worker.fail(job, CANCELLED, JobState.CANCELLED)
    body = (await posting).json()
    assert (body["text"], body["output_ids"]) == ("he", [1])
    meta = body["meta_info"]
    assert meta["finish_reason"]["type"] == "abort"
    assert meta["output_token_logprobs"] == [[-0.5, 1, None]]
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["cached_tokens"]) == (3, 1, 0)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_that_was_aborted_in_the_queue_is_empty(
    http: httpx.AsyncClient, is_stream: bool
) -> None:
    posting = asyncio.create_task(http.post(URL, json={**SLIME, "stream": is_stream}))
    await eventually(lambda: aborts_one(http))
    reply = await posting
    body = sse_events(reply.text)[0].json if is_stream else reply.json()
    assert reply.status_code == 200
    assert (body["text"], body["output_ids"]) == ("", [])
    assert body["meta_info"]["finish_reason"]["type"] == "abort"
    assert body["meta_info"]["output_token_logprobs"] == []


@with_settings(require_keys=True)
async def test_a_tenant_aborts_only_its_own_requests(
    http: httpx.AsyncClient, worker: ScriptedWorker, store: KeyStore
) -> None:
    mine, _ = await new_key(store, tenant="red")
    other, _ = await new_key(store, tenant="blue")
    body = {"text": "hi", "rid": "a:1"}
    posting = [
        asyncio.create_task(http.post(URL, json=body, headers=bearer(secret)))
        for secret in (mine, other)
    ]
    jobs = [await worker.take(), await worker.take()]
    reply = await http.post(
        "/abort_request", json={"rid": "a:", "prefix": True}, headers=bearer(mine)
    )
    assert reply.json() == {"num_aborted": 1}
    (cancelled,) = [job for job in jobs if job.job.tenant == "red"]
    assert (await worker.mail()).job == cancelled.job.id
    await worker.fail(cancelled, CANCELLED, JobState.CANCELLED)
    (left,) = [job for job in jobs if job is not cancelled]
    await worker.answer(left)
    first, second = [await each for each in posting]
    assert first.json()["meta_info"]["finish_reason"]["type"] == "abort"
    assert second.json()["meta_info"]["finish_reason"]["type"] == "stop"


async def test_an_abort_needs_a_name(http: httpx.AsyncClient) -> None:
    # verl sends both fields. Without a name, SGLang ignores the request.
    reply = await http.post("/abort_request", json={"rid": "", "abort_all": False})
    assert error_of(reply) == (400, "invalid_value", "rid")
    reply = await http.post("/abort_request", json={"rid": "nobody"})
    assert reply.json() == {"num_aborted": 0}


async def test_other_requests_that_are_aborted_fail(
    http: httpx.AsyncClient, server: RunningApp
) -> None:
    body = {"model": "extract", "prompt": "hi"}
    posting = asyncio.create_task(http.post("/v1/completions", json=body))
    await eventually(lambda: aborts_one(http))
    assert error_of(await posting)[:2] == (409, "cancelled")


async def test_the_job_is_stored_as_sglang_s(
    http: httpx.AsyncClient, worker: ScriptedWorker, server: RunningApp
) -> None:
    _, job = await answered(http, worker, SLIME)
    view = await server.pool.views.job(job.job.id)
    assert view is not None
    assert view.spec.view is View.GENERATE
    streamed = await http.get(f"/v1/jobs/{job.job.id}/stream")
    assert orjson.loads(sse_events(streamed.text)[0].data)["text"] == "hello"
