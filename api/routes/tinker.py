"""The sampling part of Tinker's API, under /api/v1."""

import hashlib
import secrets
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from api.answers.admission import admit
from api.answers.parts import Following, Intake
from api.answers.submission import submit_json
from api.http.body import read_json_object
from api.http.errors import json_response
from api.http.guards import InAccess, Work, guarded
from api.http.headers import IDEMPOTENCY_HEADER
from api.http.validation import validate
from api.pools.pools import pools_of
from api.pools.registered_base import registered_base
from api.pools.requested import part
from api.requests.translate import parse_completion
from api.routes.models import model_cards
from api.schema.tinker import Future, SampleRequest, SamplerRequest
from api.tinker.futures import future_response
from api.tinker.samplers import PATH_PREFIX, Sampler, parse_sampler
from api.tinker.translate import completion_of, parse_sample, sample_job
from shared.errors import ErrorCode, failed, invalid_param
from shared.protocol.access.rights import Scope

router = APIRouter(prefix="/api/v1", include_in_schema=False)
SHARE = 8
"""One client may use the fraction 1 / `SHARE` of a front end's connections."""


@router.post("/client/config")
@guarded(Work.CONSTANT, Scope.INFERENCE)
async def client_config(access: InAccess, intake: Intake = part(Intake)) -> dict[str, Any]:
    """Return the maximum number of requests that a client may send at the same time.

    The number is limited because each request holds a connection until its job has ended. The
    client has defaults for all other flags.
    """
    return {"sample_max_concurrent_requests": max(1, intake.settings.max_connections // SHARE)}


@router.get("/get_server_capabilities")
@guarded(Work.SUMMARY, Scope.INFERENCE)
async def get_server_capabilities(request: Request, access: InAccess) -> dict[str, Any]:
    """Return the models that a client may sample from."""
    names = [card.id for card in await model_cards(request, access)]
    models = [{"model_name": name, "sampleable": True, "trainable": False} for name in names]
    return {"supported_models": models}


@router.post("/create_session")
@guarded(Work.CONSTANT, Scope.INFERENCE)
async def create_session(access: InAccess) -> dict[str, str]:
    """Return the id of a new session. The server stores nothing about the session."""
    return {"type": "create_session", "session_id": secrets.token_hex(16)}


@router.post("/session_heartbeat")
@guarded(Work.CONSTANT, Scope.INFERENCE)
async def session_heartbeat(access: InAccess) -> dict[str, str]:
    """Accept a heartbeat, which has no effect: jobs run in the background."""
    return {"type": "session_heartbeat"}


@router.post("/create_model")
@guarded(Work.CONSTANT, Scope.INFERENCE)
async def create_model(access: InAccess) -> Response:
    """Refuse to train a model."""
    message = "this server samples and doesn't train; load trained adapters, and sample from them"
    raise failed(ErrorCode.UNSUPPORTED_PARAMETER, message)


@router.post("/create_sampling_session")
@guarded(Work.ANSWER, Scope.INFERENCE)
async def create_sampling_session(request: Request, access: InAccess) -> dict[str, str]:
    """Return the id of a sampler of the base model or of an adapter."""
    body = validate(SamplerRequest, await read_json_object(request))
    model = (body.model_path or body.base_model or "").removeprefix(PATH_PREFIX)
    if not model:
        raise invalid_param("base_model", "is required without model_path")
    pool = await pools_of(request).of_model(request, model)
    await admit(pool.part(Intake), access, model)
    sampler = Sampler(f"{body.session_id}:sample:{body.sampling_session_seq_id}", model)
    return {"type": "create_sampling_session", "sampling_session_id": sampler.id}


@router.get("/samplers/{sampler_id}")
@guarded(Work.READ, Scope.INFERENCE)
async def get_sampler(request: Request, sampler_id: str, access: InAccess) -> dict[str, str]:
    """Return the base model and the adapter of a sampler."""
    model = parse_sampler(sampler_id, "sampler_id").model
    pool = await pools_of(request).of_model(request, model)
    base = (await registered_base(pool.registry)).name
    path = {} if model == base else {"model_path": PATH_PREFIX + model}
    return {"sampler_id": sampler_id, "base_model": base, **path}


@router.post("/asample")
@guarded(Work.ANSWER, Scope.INFERENCE)
async def asample(request: Request, access: InAccess) -> Response:
    """Start a job that computes samples, and return its id as the id of a future."""
    sample = parse_sample(await read_json_object(request))
    raw = completion_of(sample)
    job_of = partial(sample_job, sample)
    accepted = await submit_json(
        _repeatable(request, sample), access, raw, parse_completion, job_of
    )
    job_id = orjson.loads(accepted.body)["id"]
    ids = [f"{job_id}:{number}" for number in range(sample.num_samples)]
    return json_response({"request_id": job_id, "sample_sequence_ids": ids})


@router.post("/retrieve_future")
@guarded(Work.ANSWER, Scope.INFERENCE)
async def retrieve_future(request: Request, access: InAccess) -> Response:
    """Return the result of a future, or status 408 if the result isn't ready after some seconds."""
    job_id = validate(Future, await read_json_object(request)).request_id
    pool = await pools_of(request).of_job(request, job_id)
    return await future_response(pool.part(Following), access, job_id)


def _repeatable(request: Request, sample: SampleRequest) -> Request:
    """Return the request with an idempotency key, so that repetitions of it get the same job.

    The key is made of the session and the number of the request. Requests without a number are
    returned unchanged.
    """
    if sample.seq_id is None:
        return request
    number = f"{sample.sampling_session_id}:{sample.seq_id}"
    key = f"tinker-{hashlib.sha256(number.encode()).hexdigest()}"
    headers = [*request.scope["headers"], (IDEMPOTENCY_HEADER.lower().encode(), key.encode())]
    return Request({**request.scope, "headers": headers}, request.receive)
