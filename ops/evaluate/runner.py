"""Sends cases to the versions of an adapter, a limited number at a time."""

import asyncio
from collections.abc import Callable, Sequence

import httpx

from ops.evaluate.cases import Case, Outcome
from ops.server_client import UNAVAILABLE, ServerClient, ServerError, error_text, reason_of

MAX_TRIES = 5


async def answer_all(
    client: ServerClient,
    versions: Sequence[str],
    cases: Sequence[Case],
    *,
    concurrency: int,
    on_answer: Callable[[], None],
) -> list[Outcome]:
    """Return the outcomes, by case and then by version. Call `on_answer` after each answer.

    Raises:
        ServerError: the server can't be reached, or refuses a request.
    """
    slots = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(base_url=client.url, **client.options) as http:

        async def outcome(case: Case, version: str) -> Outcome:
            async with slots:
                answer = await _answer(http, case, version)
            on_answer()
            return Outcome(case=case, version=version, answer=answer, is_good=case.is_good(answer))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(outcome(case, version))
                    for case in cases
                    for version in versions
                ]
        except* ServerError as errors:
            raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _answer(http: httpx.AsyncClient, case: Case, version: str) -> str:
    body = {**case.body, "model": version}
    for attempt in range(MAX_TRIES):
        try:
            reply = await http.post(case.path, json=body)
        except httpx.HTTPError as error:
            reason = error_text(error)
            raise ServerError(f"no answer from {http.base_url}: {reason}") from None
        if reply.status_code not in UNAVAILABLE:
            break
        await asyncio.sleep(float(reply.headers.get("retry-after", 2**attempt)))
    if not reply.is_success:
        reason = reason_of(reply.status_code, reply.content, str(http.base_url))
        raise ServerError(f"--file: line {case.line}: {reason}")
    choice = reply.json()["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return text or ""  # a tool call may have no text
