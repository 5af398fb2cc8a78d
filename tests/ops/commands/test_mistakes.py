"""Typical mistakes on the command line, and what `lorikeet` says about them: `mistakes.toml`.

In the table, OPEN and CLOSED are the addresses of servers without and with keys, and EMPTY is an
empty file.
"""

import asyncio
import re
import shlex
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from adapter_readers import finds, reading
from api_support import register_models, running_app
from command_line import Ended, typed

from shared.errors import ErrorCode, JobError
from shared.settings import ApiSettings
from shared.store.adapters.inspections import Findings, Inspection
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

pytestmark = pytest.mark.slow

MISTAKES = tomllib.loads(Path(__file__).with_name("mistakes.toml").read_text())["mistake"]
Places = dict[str, str]


@pytest.fixture
async def places(
    settings: ApiSettings,
    redis: Redis,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Places]:
    """Start two servers with one adapter, and return what stands for the names in the table."""
    await register_models(Registry(redis, keys))
    (tmp_path / "empty").touch()
    closed = settings.model_copy(update={"require_keys": True})

    def find(asked: Inspection) -> Findings:
        if "bad" not in asked.source:
            return finds(asked)
        error = JobError(code=ErrorCode.ADAPTER_REJECTED, message="tensor x belongs to no module")
        return Findings(error=error, source="/x", num_tensors=2, num_unmatched=1, unmatched=("x",))

    async with (
        reading(redis, keys) as start,
        running_app(settings) as open_app,
        running_app(closed) as closed_app,
    ):
        await start(find=find)
        monkeypatch.setenv("LORIKEET_URL", open_app.url)
        for name in ("LORIKEET_API_KEYS", "LORIKEET_REDIS_URL", "REDIS_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(tmp_path)
        yield {
            "OPEN": open_app.url.removeprefix("http://"),
            "CLOSED": closed_app.url.removeprefix("http://"),
            "EMPTY": str(tmp_path / "empty"),
        }


def said(ended: Ended, places: Places) -> str:
    """Return the message about the mistake, as the table has it."""
    lines = ended.err.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith(("lorikeet: ", "Error: "))]
    line = " ".join(lines[starts[-1] :]) if starts else ended.err
    for name, place in places.items():
        line = line.replace(place, name)
    return re.sub(r"\[SSL.*?\)", "[SSL]", " ".join(line.split()))  # OpenSSL's words vary


async def test_every_mistake_is_answered_as_in_the_table(places: Places) -> None:
    assert len(MISTAKES) >= 60
    for mistake in MISTAKES:
        line = mistake["typed"]
        for name, place in places.items():
            line = line.replace(name, place)
        ended = await asyncio.to_thread(typed, *shlex.split(line))
        assert (mistake["typed"], said(ended, places)) == (mistake["typed"], mistake["said"])
        assert ended.status in (1, 2), mistake
