"""One request of a chaos client, from its first connection to its checked answer.

A client that has lost its connection continues as `ops/examples/resume.py` does. If it knows the id
of its job, it asks for the job. If not, it repeats its request with the same Idempotency-Key.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import httpx

from ops.lab.chaos.load.answer import Answer, usage_of
from ops.lab.chaos.load.front_ends import WHOLE_LIMITS, FrontEnds
from ops.lab.chaos.load.record import Outcome, Record
from ops.lab.chaos.load.requests import ChaosRequest, Manner
from ops.lab.chaos.load.sse import read_events
from ops.lab.chaos.load.text_checks import SimulatedTexts, problems_of, problems_of_part
from shared.errors import LorikeetError
from shared.protocol.jobs import UNFINISHED

PATIENCE_S = 180.0
"""Seconds after which a client gives its answer up as lost."""
MAX_RETRY_S = 2.0
"""Maximum seconds that a client waits before it retries, even if Retry-After asks for more."""
BACKOFF_S = (0.2, 0.6)
POLL_S = (0.5, 1.5)


class Lost(LorikeetError):
    """Raised if a client won't get its answer. The message gives the reason."""


class Exchange:
    """One request of a client, and the steps by which the client obtains its answer."""

    def __init__(
        self, request: ChaosRequest, front_ends: FrontEnds, texts: SimulatedTexts, rng: Random
    ) -> None:
        self.request = request
        self.answer = Answer()
        self.record = Record(
            key=request.key,
            manner=request.manner.value,
            is_stream=request.is_stream,
            sent_s=time.monotonic(),
        )
        self._front_ends = front_ends
        self._texts = texts
        self._rng = rng
        self._http = front_ends.pick()

    async def run(self) -> Record:
        """Obtain the answer and check it. The record contains the outcome."""
        record = self.record
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._obtain()
                record.outcome = await self._check()
        except TimeoutError:
            record.reason = f"no whole answer within {PATIENCE_S:g} s"
        except Lost as lost:
            record.reason = str(lost)
        record.ended_s = time.monotonic()
        if record.outcome is not Outcome.ANSWERED:
            record.problems += problems_of_part(self.request.question, self.answer, self._texts)
        return record

    @property
    def job(self) -> str | None:
        """Id of the job, if a front end has named it."""
        return self.record.jobs[-1] if self.record.jobs else None

    async def on_text(self, response: httpx.Response) -> None:
        """Called after each part of a stream, if the part has text. Subclasses act here."""

    async def _obtain(self) -> None:
        if self.request.manner is Manner.BACKGROUND:
            await self._repeat(self._start_in_background)
            await self._repeat(self._poll)
        elif self.request.is_stream:
            await self._repeat(self._stream)
        else:
            await self._repeat(self._request_whole)

    async def _repeat(self, attempt: Any) -> None:
        """Call `attempt` until it returns true. After a failure, use another front end."""
        while True:
            try:
                if await attempt():
                    return
            except httpx.TransportError:
                if self.job is None:
                    self.record.num_refusals += 1
            await asyncio.sleep(self._rng.uniform(*BACKOFF_S))
            self._http = self._front_ends.pick(other_than=self._http)

    async def _stream(self) -> bool:
        """Read the stream until its end or until it is interrupted. Return whether it has ended."""
        async with self._open_stream() as response:
            if not await self._is_accepted(response):
                return False
            async for event in read_events(response):
                num_chars = self.answer.add_event(event)
                if num_chars:
                    self._note_arrival(num_chars)
                    await self.on_text(response)
                if self.answer.is_ended:
                    return True
        return False

    @asynccontextmanager
    async def _open_stream(self) -> AsyncIterator[httpx.Response]:
        request = self.request
        if self.job is None:
            opened = self._http.stream(
                "POST", request.question.path, json=request.body, headers=request.headers
            )
        else:
            self.record.num_resumes += 1
            last = {"Last-Event-ID": self.answer.last_id} if self.answer.last_id else {}
            opened = self._http.stream("GET", f"/v1/jobs/{self.job}/stream", headers=last)
        async with opened as response:
            yield response

    async def _request_whole(self) -> bool:
        request = self.request
        response = await self._http.post(
            request.question.path, json=request.body, headers=request.headers, timeout=WHOLE_LIMITS
        )
        if not await self._is_accepted(response):
            return False
        self.answer.add_body(response.json())
        return True

    async def _start_in_background(self) -> bool:
        request = self.request
        response = await self._http.post(
            request.question.path, json=request.body, headers=request.headers
        )
        return await self._is_accepted(response)

    async def _poll(self) -> bool:
        body = await self._job_body()
        if body is None or body["state"] in UNFINISHED:
            await asyncio.sleep(self._rng.uniform(*POLL_S))
            return False
        if body["state"] != "done":
            self.answer.error = body["error"]["code"] if body["error"] else body["state"]
            return True
        self.answer.add_job(body)
        return True

    async def _job_body(self) -> dict[str, Any] | None:
        """Return the reply of GET /v1/jobs/{id}; None if the front end refuses the request."""
        response = await self._http.get(f"/v1/jobs/{self.job}")
        if not await self._is_accepted(response):
            return None
        body: dict[str, Any] = response.json()
        return body

    async def _is_accepted(self, response: httpx.Response) -> bool:
        """Return whether the request was accepted.

        If it was refused but can be sent again later, wait before returning.

        Raises:
            Lost: the request was refused for good.
        """
        if response.status_code in (200, 202):
            self._note_job(response.headers)
            return True
        await response.aread()
        if response.status_code not in (429, 503):
            self._note_job(response.headers)
            raise Lost(f"status {response.status_code}: {response.text[:200]}")
        if self.job is None:
            self.record.num_refusals += 1
        wait_s = float(response.headers.get("Retry-After", 0))
        await asyncio.sleep(min(wait_s, MAX_RETRY_S) * self._rng.uniform(0.5, 1.0))
        return False

    def _note_job(self, headers: Mapping[str, str]) -> None:
        job = headers.get("X-Lorikeet-Job")
        if job is not None and job not in self.record.jobs:
            self.record.jobs.append(job)
        self.record.num_replays += headers.get("Idempotent-Replayed") == "true"

    def _note_arrival(self, num_chars: int) -> None:
        record = self.record
        record.arrivals_ms.append(round(1000 * (time.monotonic() - record.sent_s)))
        record.num_chars.append(num_chars)

    async def _check(self) -> Outcome:
        """Check the answer, and compare it with the one that the pool has stored.

        Raises:
            Lost: the job ended with an error.
        """
        record = self.record
        if len(record.jobs) != 1:
            record.problems.append(f"one request has the jobs {record.jobs}")
        if self.answer.error is not None:
            await self._repeat(self._has_ended)
            if self.answer.error == "cancelled" and self.request.manner is Manner.CANCEL:
                return Outcome.CANCELLED
            raise Lost(f"error {self.answer.error}")
        record.problems += problems_of(self.request.question, self.answer, self._texts)
        await self._repeat(self._compare)
        return Outcome.ANSWERED

    async def _has_ended(self) -> bool:
        """Return whether the job has ended. If so, record its usage."""
        body = await self._job_body()
        if body is None or body["state"] in UNFINISHED:
            return False
        self.record.usage = usage_of(body)
        return True

    async def _compare(self) -> bool:
        body = await self._job_body()
        if body is None or body["state"] in UNFINISHED:
            return False
        question = self.request.question
        if body["choices"] is None and not body.get("answer"):
            self.record.problems.append(f"the job is {body['state']}, but has no stored answer")
            return True
        usage = self.record.usage = usage_of(body)
        stored = Answer()
        stored.add_job(body)
        if stored.texts != self.answer.texts or stored.finishes != self.answer.finishes:
            self.record.problems.append("the stored answer differs from the received one")
        if usage[1:] != [question.n * question.num_tokens]:
            self.record.problems.append(f"usage states {usage} tokens")
        if self.answer.usage and self.answer.usage != usage:
            self.record.problems.append(f"the answer stated the usage {self.answer.usage}")
        return True
