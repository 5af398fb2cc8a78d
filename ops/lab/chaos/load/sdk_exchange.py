"""One request whose stream an official client reads.

Official clients repeat a request whose stream hasn't begun, but none continues a stream. If the
connection breaks or the front end stops, the official client must raise one of its own errors. The
program that uses the client then asks for the job. After the run, a check looks for a fault that
explains each broken stream.
"""

import time
from random import Random

import httpx

from ops.lab.chaos.load.answer import Answer
from ops.lab.chaos.load.exchange import Exchange, Lost
from ops.lab.chaos.load.front_ends import FrontEnds
from ops.lab.chaos.load.requests import ChaosRequest, Question
from ops.lab.chaos.load.sdks.sdk import Api, Part, Sdk, SdkChoked, SdkError, SdkRequest, fields_of
from ops.lab.chaos.load.text_checks import SimulatedTexts

REPEATED = (None, 429, 503)
"""Statuses after which a request is sent again. None means that there was no response."""


class SdkExchange(Exchange):
    """One request. An official client library sends it and reads its stream."""

    def __init__(
        self,
        request: ChaosRequest,
        front_ends: FrontEnds,
        texts: SimulatedTexts,
        rng: Random,
        sdk: Sdk,
    ) -> None:
        super().__init__(request, front_ends, texts, rng)
        self._sdk = sdk
        self._api = api_of(sdk, request.question, rng)
        self.record.client = sdk.name

    async def _obtain(self) -> None:
        await self._repeat(self._read)
        if not self.answer.is_ended:
            received, self.answer = self.answer, Answer()
            await self._repeat(self._poll)
            self._compare_beginning(received)

    async def _read(self) -> bool:
        """Read the stream until it ends or breaks. Return whether it has begun."""
        try:
            async for part in self._sdk.stream(self._asked(self._http)):
                self._add(part)
        except SdkError as error:
            return self._has_broken(error, error.status)
        except SdkChoked as error:
            self.record.problems.append(f"{self._sdk.name} can't read its stream: {error}")
            return self._has_broken(error, None)
        self.answer.is_ended = True
        return True

    def _asked(self, http: httpx.AsyncClient) -> SdkRequest:
        request = self.request
        return SdkRequest(
            api=self._api,
            url=str(http.base_url).rstrip("/"),
            fields=fields_of(self._api, request.question),
            headers=request.headers,
        )

    def _add(self, part: Part) -> None:
        if part.job is not None and part.job not in self.record.jobs:
            self.record.jobs.append(part.job)
        if num_chars := self.answer.add(part.choice, part.text, part.finish):
            self._note_arrival(num_chars)

    def _has_broken(self, error: Exception, status: int | None) -> bool:
        """Return whether the stream had begun. If so, note in the record that it broke.

        Raises:
            Lost: the request was refused for good.
        """
        if self.job is not None:
            self.record.broken_s, self.record.break_reason = time.monotonic(), str(error)
            return True
        if status not in REPEATED:
            raise Lost(f"{self._sdk.name}: {error}")
        self.record.num_refusals += 1
        return False

    def _compare_beginning(self, received: Answer) -> None:
        """Compare the part that a broken stream had sent with the answer that the pool stored."""
        for choice, text in received.texts.items():
            if not self.answer.texts.get(choice, "").startswith(text):
                self.record.problems.append(f"choice {choice} began with another text")


def api_of(sdk: Sdk, question: Question, rng: Random) -> Api:
    """Return an API that `sdk` speaks and that can ask `question`. `fits` must be true."""
    if Api.MESSAGES in sdk.apis:
        return Api.MESSAGES
    if not question.is_chat:
        return Api.COMPLETIONS
    return Api.CHAT if question.n > 1 else rng.choice((Api.CHAT, Api.RESPONSES))


def fits(sdk: Sdk, question: Question) -> bool:
    """Return whether `sdk` can ask `question`.

    The API for messages has only chats with one choice.
    """
    return Api.MESSAGES not in sdk.apis or (question.is_chat and question.n == 1)
