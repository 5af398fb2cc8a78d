"""/api/v1: the sampling part of Tinker's API. tests/clients runs its client against a model."""

import asyncio
import math
import struct
from typing import Any

import httpx
import pytest
from api_support import ADAPTER, BASE, ScriptedWorker, error_of

from api.tinker import futures
from api.tinker.samplers import Sampler
from shared.errors import ErrorCode, JobError
from shared.protocol.jobs import ClaimedJob
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason
from shared.settings import ApiSettings

SAMPLER = Sampler("s:sample:0", "extract").id
SAMPLE: dict[str, Any] = {
    "type": "sample",
    "sampling_session_id": SAMPLER,
    "seq_id": 0,
    "num_samples": 1,
    "prompt": {"chunks": [{"type": "encoded_text", "tokens": [5, 6]}]},
    "sampling_params": {"max_tokens": 2, "temperature": 1, "top_k": -1, "top_p": 1},
    "prompt_logprobs": False,
    "topk_prompt_logprobs": 0,
    "topk_sample_logprobs": 0,
    "prompt_alt_tokens_k": 0,
    "record_stability_info": False,
}
SCORES = (
    '[null,{"6":{"logprob":-2.0,"rank":3,"decoded_token":"b"},'
    '"9":{"logprob":-0.5,"rank":1,"decoded_token":"c"},'
    '"8":{"logprob":-1.0,"rank":2,"decoded_token":"d"}}]'
)
Fields = dict[int, list[Any]]


def position(token: int, logprob: float, *top: tuple[int, float]) -> PositionLogprobs:
    chosen, *others = (
        TokenLogprob(token=f"token_id:{id_}", logprob=value, bytes=None)
        for id_, value in ((token, logprob), *top)
    )
    return PositionLogprobs(chosen=chosen, top=tuple(others), offset=0)


CHOICE = Choice(
    text="ab",
    finish=FinishReason.STOP,
    ids=(70_000, 2),
    logprobs=(position(70_000, -0.25, (3, -0.125), (70_000, -0.25)), position(2, -4.0, (2, -4.0))),
    prompt_scores=SCORES,
)


def decoded(message: bytes) -> Fields:
    """Return the values of each field of a message in protobuf's wire format."""
    fields: Fields = {}

    def varint() -> int:
        nonlocal message
        value, shift = 0, 0
        while True:
            byte, message = message[0], message[1:]
            value, shift = value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while message:
        key = varint()
        value: Any = varint()
        if key & 7 == 2:
            value, message = message[:value], message[value:]
        fields.setdefault(key >> 3, []).append(value)
    return fields


def floats(raw: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def ids(raw: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(raw) // 4}i", raw))


async def post(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    return await http.post(f"/api/v1/{path}", json=body)


async def started(
    http: httpx.AsyncClient, worker: ScriptedWorker, **fields: Any
) -> tuple[str, ClaimedJob]:
    """Start a job, and return the id of its future and the job."""
    reply = await post(http, "asample", {**SAMPLE, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()["request_id"], await worker.take()


async def test_a_client_uses_a_share_of_the_connections(
    http: httpx.AsyncClient, settings: ApiSettings
) -> None:
    config = (await post(http, "client/config", {"sdk_version": "0.38.0"})).json()
    assert config == {"sample_max_concurrent_requests": settings.max_connections // 8}


async def test_a_sampler_of_an_adapter_has_its_name_on_every_front_end(
    http: httpx.AsyncClient, other: httpx.AsyncClient
) -> None:
    session = (await post(http, "create_session", {"tags": []})).json()["session_id"]
    body = {"session_id": session, "sampling_session_seq_id": 4, "model_path": "tinker://extract"}
    sampler = (await post(http, "create_sampling_session", body)).json()["sampling_session_id"]
    found = await other.get(f"/api/v1/samplers/{sampler}")
    assert found.json() == {
        "sampler_id": sampler,
        "base_model": BASE.name,
        "model_path": "tinker://extract",
    }
    body = {"session_id": session, "sampling_session_seq_id": 5, "base_model": BASE.name}
    sampler = (await post(http, "create_sampling_session", body)).json()["sampling_session_id"]
    found = await other.get(f"/api/v1/samplers/{sampler}")
    assert found.json() == {"sampler_id": sampler, "base_model": BASE.name}


async def test_a_sample_is_a_job_and_its_future_has_tokens_and_logprobs(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    future, job = await started(
        http, worker, num_samples=2, prompt_logprobs=True, topk_prompt_logprobs=2,
        topk_sample_logprobs=2,
    )  # fmt: skip
    assert (job.job.version, job.job.prompts) == (ADAPTER.version, ((5, 6),))
    sampling = job.job.sampling
    assert (sampling.n, sampling.max_tokens, sampling.logprobs) == (2, 2, 2)
    assert sampling.prompt_logprobs == 2
    await worker.finish(job, CHOICE, Choice(text="", finish=FinishReason.LENGTH, ids=()))
    reply = await post(other, "retrieve_future", {"request_id": future})
    assert reply.headers["content-type"] == "application/x-protobuf"
    message = decoded(reply.content)
    first, second = map(decoded, message[1])
    assert ids(first[2][0]) == [70_000, 2]
    assert floats(first[3][0]) == [-0.25, -4.0]
    assert 1 not in first
    top = decoded(first[4][0])
    assert (ids(top[1][0]), top[3], top[4]) == ([3, 70_000, 2, 0], [2], [2])
    assert floats(top[2][0]) == [-0.125, -0.25, -4.0, -99999.0]
    assert (second[1], second[2]) == ([1], [b""])
    own = floats(message[2][0])
    assert (math.isnan(own[0]), own[1]) == (True, -2.0)
    top = decoded(message[3][0])
    assert ids(top[1][0]) == [0, 0, 9, 8]
    assert floats(top[2][0]) == [-99999.0, -99999.0, -0.5, -1.0]


async def test_a_future_that_is_not_ready_is_tried_again(
    http: httpx.AsyncClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(futures, "WAIT_S", 0.05)
    future, job = await started(http, worker)
    reply = await post(http, "retrieve_future", {"request_id": future})
    assert (reply.status_code, reply.json()["type"]) == (408, "try_again")
    monkeypatch.setattr(futures, "WAIT_S", 20.0)
    waiting = post(http, "retrieve_future", {"request_id": future})
    reply, _ = await asyncio.gather(waiting, worker.answer(job))
    assert ids(decoded(decoded(reply.content)[1][0])[2][0]) == [1, 2]


@pytest.mark.parametrize(
    ("code", "category"), [(ErrorCode.INVALID_VALUE, "user"), (ErrorCode.INTERNAL, "server")]
)
async def test_the_error_of_a_job_is_the_result_of_its_future(
    http: httpx.AsyncClient, worker: ScriptedWorker, code: ErrorCode, category: str
) -> None:
    future, job = await started(http, worker)
    await worker.fail(job, JobError(code=code, message="broken"))
    reply = await post(http, "retrieve_future", {"request_id": future})
    assert (reply.status_code, reply.json()) == (200, {"error": "broken", "category": category})


async def test_a_repeated_request_has_the_same_future_and_another_number_a_new_one(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    future, _ = await started(http, worker)
    again = await post(http, "asample", SAMPLE)
    assert again.json()["request_id"] == future
    assert (await started(http, worker, seq_id=1))[0] != future


@pytest.mark.parametrize(
    ("sampling", "name", "value"),
    [
        ({"stop": "x"}, "stop", ("x",)),
        ({"stop": ["x", "y"]}, "stop", ("x", "y")),
        ({"stop": [7]}, "stop_token_ids", (7,)),
        ({"stop": []}, "ignore_eos", True),
        ({"seed": 4}, "seed", 4),
        ({"max_tokens": None}, "max_tokens", None),
        ({"top_k": 5}, "top_k", 5),
    ],
)
async def test_sampling_parameters_are_the_jobs(
    http: httpx.AsyncClient,
    worker: ScriptedWorker,
    sampling: dict[str, Any],
    name: str,
    value: object,
) -> None:
    _, job = await started(http, worker, sampling_params=sampling)
    assert getattr(job.job.sampling, name) == value


IMAGE = {"chunks": [{"type": "image", "data": "x"}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"sampling_session_id": "x"}, "sampling_session_id"),
        ({"sampling_session_id": "x:\u00e9"}, "sampling_session_id"),
        ({"prompt": IMAGE}, "prompt.chunks[0].type"),
        ({"prompt": {"chunks": []}}, "prompt.chunks"),
        ({"prompt": {"chunks": [{"type": "encoded_text", "tokens": []}]}}, "prompt"),
        ({"sampling_params": {"temperature": -1}}, "temperature"),
        ({"sampling_params": {"stop": 5}}, "sampling_params.stop"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 129}, "num_samples"),
        ({"topk_sample_logprobs": 21}, "topk_sample_logprobs"),
        ({"topk_prompt_logprobs": 21}, "topk_prompt_logprobs"),
        ({"prompt_logprobs_last_n": 2}, "prompt_logprobs_last_n"),
        ({"prompt_alt_tokens_k": 1}, "prompt_alt_tokens_k"),
        ({"target_prompt_logprobs": {"data": []}}, "target_prompt_logprobs"),
        ({"record_stability_info": True}, "record_stability_info"),
    ],
)
async def test_a_bad_request_for_samples_is_refused(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    reply = await post(http, "asample", {**SAMPLE, **fields})
    status, _, found = error_of(reply)
    assert (status, (found or "")[: len(param)]) == (400, param), reply.text


async def test_other_jobs_and_unknown_ones_are_no_futures(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    reply = await post(http, "retrieve_future", {"request_id": "absent"})
    assert error_of(reply)[:2] == (404, "job_not_found")
    completion = {"model": "extract", "prompt": "hi", "background": True}
    job = (await http.post("/v1/completions", json=completion)).json()["id"]
    reply = await post(http, "retrieve_future", {"request_id": job})
    assert error_of(reply) == (400, "invalid_value", "request_id")


async def test_unknown_models_and_training_are_refused(http: httpx.AsyncClient) -> None:
    body = {"session_id": "s", "sampling_session_seq_id": 0}
    reply = await post(http, "create_sampling_session", {**body, "model_path": "tinker://absent"})
    assert error_of(reply)[:2] == (404, "model_not_found")
    reply = await post(http, "create_sampling_session", body)
    assert error_of(reply) == (400, "invalid_value", "base_model")
    reply = await post(http, "create_model", {})
    assert error_of(reply)[:2] == (400, "unsupported_parameter")
