"""Answers the requests of a batch with the front end's own code, inside the control process."""

import random
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import orjson
from fastapi import FastAPI

from api.answers.in_process import Answering, Reply, reply_to
from api.answers.submission import submit_json
from api.http.errors import error_body
from api.http.headers import (
    DEADLINE_HEADER,
    IDEMPOTENCY_HEADER,
    JOB_HEADER,
    ON_DISCONNECT_HEADER,
    RETRY_AFTER_HEADER,
    SHOULD_RETRY_HEADER,
)
from api.requests.embeddings import embedding_job, parse_embedding
from api.requests.translate import chat_job, completion_job, parse_chat, parse_completion
from api.routes.responses import answer_response
from shared.errors import ErrorCode, JobError
from shared.protocol.access.rights import Access
from shared.protocol.ids import JobId, job_id_of
from shared.protocol.results import Usage

RETRIED = {429, 503, 504}
"""Statuses after which a request is sent again while the batch has time left.

They mean that a limit is reached, that something is unavailable, or that the job is late.
"""
RETRY_S = 1.0
"""Seconds until a request is sent again if its answer has no Retry-After."""
EXPIRED = JobError(
    code=ErrorCode.BATCH_EXPIRED,
    message="the batch's completion window was over before this request had ended",
)

ANSWERING: Mapping[str, Answering] = {
    "/v1/chat/completions": partial(submit_json, parse=parse_chat, job_of=chat_job),
    "/v1/completions": partial(submit_json, parse=parse_completion, job_of=completion_job),
    "/v1/embeddings": partial(submit_json, parse=parse_embedding, job_of=embedding_job),
    "/v1/responses": answer_response,
}
"""For each endpoint, the function that answers its requests."""
INTERNAL = JobError(
    code=ErrorCode.INTERNAL,
    message="internal error; the control process' log has the details under the id of the batch",
)


@dataclass(frozen=True, slots=True)
class Later:
    """The pool can't answer a request yet."""

    wait_s: float
    of_all: bool
    """Whether all requests of the batch must wait, instead of only those for the same model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """Response to one request of a batch."""

    status: int
    body: bytes
    """Body of the response, as JSON."""
    request_id: str
    job: JobId | None
    """Job of the request; None if the request was refused."""

    @property
    def is_success(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 300

    def line(self, batch_id: str, number: int, custom_id: str) -> bytes:
        """Return the answer as a line of an output file, including the line break."""
        head = {"id": f"batch_req_{batch_id.removeprefix('batch_')}_{number}"}
        response = {"status_code": self.status, "request_id": self.request_id}
        return orjson.dumps(
            {
                **head,
                "custom_id": custom_id,
                "response": {**response, "body": orjson.Fragment(self.body)},
                "error": None,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )

    def usage(self) -> Usage:
        """Return the tokens that the answer's `usage` reports.

        Raises:
            ValueError, AttributeError: the answer isn't a JSON object, or has no valid usage.
        """
        usage = orjson.loads(self.body).get("usage") or {}
        prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        output_details = (
            usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
        )
        return Usage(
            prompt_tokens=int(prompt),
            completion_tokens=int(usage.get("completion_tokens", usage.get("output_tokens", 0))),
            cached_tokens=int(details.get("cached_tokens") or 0),
            reasoning_tokens=int(output_details.get("reasoning_tokens") or 0),
        )


@dataclass(frozen=True, slots=True)
class BatchAnswerer:
    """Answers the requests of one batch by calling the front end's code in this process."""

    app: FastAPI
    """A front end's app, already started."""
    access: Access
    _: KW_ONLY
    endpoint: str
    """Path of the requests' endpoint."""
    key: str
    """Prefix of the idempotency keys. It is unique for each batch."""
    expires_s: int
    """Expiry of the requests: Unix time in seconds."""
    answering: Answering
    """Function that answers requests to the endpoint."""

    async def answer(
        self, number: int, body: dict[str, Any], *, num_bytes: int
    ) -> BatchAnswer | Later:
        """Return the answer to request `number`, whose line in the input file has `num_bytes`.

        If an earlier turn has already sent the request, the answer comes from that turn's job.
        If the pool can't answer yet, return when to try again.
        """
        left_s = self.expires_s - time.time()
        if left_s <= 0:
            return failed_answer(EXPIRED)
        headers = {
            IDEMPOTENCY_HEADER: idempotency_key(self.key, number),
            ON_DISCONNECT_HEADER: "continue",
            DEADLINE_HEADER: f"{max(left_s, 0.001):.3f}",
        }
        reply = await reply_to(
            *(self.app, self.answering, body),
            num_bytes=num_bytes,
            path=self.endpoint,
            access=self.access,
            headers=headers,
        )
        may_retry = reply.headers.get(SHOULD_RETRY_HEADER.lower()) != "false"
        # The job's deadline is the batch's end, so the next attempt returns `EXPIRED`.
        is_late = reply.status == ErrorCode.DEADLINE_EXCEEDED.status
        if reply.status not in RETRIED or not (may_retry or is_late):
            return _answer_of(reply)
        given_s = reply.headers.get(RETRY_AFTER_HEADER.lower(), RETRY_S)
        wait_s = float(given_s) * random.uniform(1, 1.5)
        return Later(wait_s, of_all=reply.status == 429)


def idempotency_key(key: str, number: int) -> str:
    """Return the idempotency key of request `number` of the batch with the key `key`."""
    return f"{key}-{number}"


def failed_answer(error: JobError) -> BatchAnswer:
    """Return `error` as the answer to a request that got no response."""
    body = error_body(error.message, error.status, code=error.code)
    return BatchAnswer(status=error.status, body=orjson.dumps(body), request_id="", job=None)


def _answer_of(reply: Reply) -> BatchAnswer:
    job = reply.headers.get(JOB_HEADER.lower())
    return BatchAnswer(
        status=reply.status,
        body=reply.body,
        request_id=reply.request_id,
        job=job_id_of(job) if job else None,
    )
