"""Fixtures for requests to Ollama's API, while a test plays the worker."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from api_support import ScriptedWorker

from shared.protocol.jobs import ClaimedJob

Answered = Callable[..., Awaitable[tuple[httpx.Response, ClaimedJob]]]


@pytest.fixture
def answered(http: httpx.AsyncClient, worker: ScriptedWorker) -> Answered:
    """A function that sends a request, answers its job, and returns the response and the job."""

    def answer(path: str, body: dict[str, Any], text: str = "hello") -> Any:
        return worker.serve(http.post(path, json=body), text)

    return answer
