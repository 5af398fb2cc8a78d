"""Runs commands against the test's pool."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from command_line import lorikeet

Run = Callable[..., Awaitable[str]]


@pytest.fixture
def run(redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `lorikeet WORDS` on the test's pool and returns its output."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORIKEET_REDIS_URL", redis_url)
    monkeypatch.setenv("LORIKEET_POOL", pool)

    return partial(asyncio.to_thread, lorikeet)
