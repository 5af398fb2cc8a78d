"""Answers the requests of a batch with the front end's own code, inside the control process."""

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import orjson
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.errors import error_body
from api.http.headers import (
    DEADLINE_HEADER,
    IDEMPOTENCY_HEADER,
    JOB_HEADER,
    ON_DISCONNECT_HEADER,
    REQUEST_ID_HEADER,
    RETRY_AFTER_HEADER,
    SHOULD_RETRY_HEADER,
)
from shared.errors import HTTP_STATUS, ErrorCode, JobError
from shared.protocol.access.rights import Access
from shared.protocol.ids import JobId, job_id_of
from shared.store.batches.records import BatchUsage

RETRIED = {429, 503, 504}
"""Statuses after which a request is sent again while the batch has time left.

A limit is reached, something is unavailable, or the deadline of the job is over.
"""
RETRY_S = 1.0
"""Seconds until a request is sent again whose answer doesn't say when."""
EXPIRED = JobError(
    code=ErrorCode.BATCH_EXPIRED,
    message="the batch's completion window was over before this request had ended",
)


INTERNAL = JobError(
    code=ErrorCode.INTERNAL,
    message="internal error; the control process' log has the details under the id of the batch",
)


@dataclass(frozen=True, slots=True)
class Later:
    """The pool can't answer a request yet."""

    wait_s: float
    of_all: bool
    """Whether this holds for all requests of the batch, because a limit is reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """Response to one request of a batch."""

    status: int
    body: bytes
    """JSON."""
    request_id: str
    job: JobId | None
    """Job of the request; None if the request was refused."""

    @property
    def is_success(self) -> bool:
        """Whether the request was answered."""
        return self.status < 300

    def line(self, batch_id: str, number: int, custom_id: str) -> bytes:
        """Return the line of an output file, with its line break."""
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

    def usage(self) -> BatchUsage:
        """Return the tokens that the answer's `usage` reports.

        Raises:
            ValueError, AttributeError: the answer isn't a JSON object, or has no valid usage.
        """
        usage = orjson.loads(self.body).get("usage") or {}
        prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        return BatchUsage(
            prompt_tokens=int(prompt),
            completion_tokens=int(usage.get("completion_tokens", usage.get("output_tokens", 0))),
            cached_tokens=int(details.get("cached_tokens") or 0),
        )


@dataclass(frozen=True, slots=True)
class _Preemptible:
    """ASGI app in which every request is preemptible and has the same rights."""

    app: ASGIApp
    access: Access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"access": self.access, "is_preemptible": True}
        await self.app(scope, receive, send)


class BatchClient:
    """Client of the front end's app for the requests of one batch."""

    def __init__(self, client: httpx.AsyncClient, *, key: str, expires_s: int) -> None:
        self._client = client
        self._key = key
        self._expires_s = expires_s

    @classmethod
    @asynccontextmanager
    async def of(
        cls, app: FastAPI, access: Access, *, key: str, expires_s: int
    ) -> AsyncIterator["BatchClient"]:
        """Provide a client.

        Args:
            app: an internal app.
            access: rights of the requests.
            key: start of the idempotency keys, which are unique for each batch.
            expires_s: Unix time in seconds at which the requests expire.
        """
        transport = httpx.ASGITransport(_Preemptible(app, access), raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://batch", timeout=None
        ) as client:
            yield cls(client, key=key, expires_s=expires_s)

    async def answer(self, path: str, number: int, body: bytes) -> BatchAnswer | Later:
        """Return the answer to a request.

        If another turn has sent the same request, the answer is that of the existing job.
        """
        left_s = self._expires_s - time.time()
        if left_s <= 0:
            return failed_answer(EXPIRED)
        headers = {
            "content-type": "application/json",
            IDEMPOTENCY_HEADER: idempotency_key(self._key, number),
            ON_DISCONNECT_HEADER: "continue",
            DEADLINE_HEADER: f"{max(left_s, 0.001):.3f}",
        }
        response = await self._client.post(path, content=body, headers=headers)
        may_retry = response.headers.get(SHOULD_RETRY_HEADER) != "false"
        if response.status_code not in RETRIED or not (may_retry or _is_late(response)):
            return _answer_of(response)
        wait_s = float(response.headers.get(RETRY_AFTER_HEADER, RETRY_S)) * random.uniform(1, 1.5)
        return Later(wait_s, of_all=response.status_code == 429)


def idempotency_key(key: str, number: int) -> str:
    """Return the idempotency key of a request of the batch with the key `key`."""
    return f"{key}-{number}"


def failed_answer(error: JobError) -> BatchAnswer:
    """Return the answer to a request that failed without a response."""
    body = error_body(error.message, error.status, code=error.code)
    return BatchAnswer(status=error.status, body=orjson.dumps(body), request_id="", job=None)


def _is_late(response: httpx.Response) -> bool:
    """Return whether the job's deadline is over, which is the end of the batch's time."""
    return response.status_code == HTTP_STATUS[ErrorCode.DEADLINE_EXCEEDED]


def _answer_of(response: httpx.Response) -> BatchAnswer:
    job = response.headers.get(JOB_HEADER)
    return BatchAnswer(
        status=response.status_code,
        body=response.content,
        request_id=response.headers.get(REQUEST_ID_HEADER, ""),
        job=job_id_of(job) if job else None,
    )
