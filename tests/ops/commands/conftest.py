"""Runs commands against the test's pool."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from typer.testing import CliRunner

from ops import cli

Run = Callable[..., Awaitable[str]]


@pytest.fixture
def run(redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `lorikeet WORDS` on the test's pool and returns its output."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORIKEET_REDIS_URL", redis_url)
    monkeypatch.setenv("LORIKEET_POOL", pool)

    async def invoke(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, words)
        if result.exception:
            raise result.exception
        return result.output

    return invoke
