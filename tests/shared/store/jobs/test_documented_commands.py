"""The `redis-cli` commands of ops/docs/queue.md, run against a pool in use."""

import re
import shlex
from pathlib import Path

import pytest
from key_support import new_key
from queue_support import API, LIMITS, Actor, make_adapter, make_job, tokens

from shared.protocol.adapters import BaseModel
from shared.protocol.ids import AdapterVersion
from shared.store.access.key_store import KeyStore
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

PAGE = Path(__file__).parents[4] / "ops" / "docs" / "queue.md"
COMMANDS = re.findall(r"^\$ redis-cli (.*)\n(.*)$", PAGE.read_text(), re.MULTILINE)
"""Documented commands with the first lines of their output."""
BASE = AdapterVersion("base@0123456789ab")
PIRATE = AdapterVersion("pirate@b13716a93689")


@pytest.fixture
async def names(queue: Queue, redis: Redis, keys: Keys) -> dict[str, str]:
    """Return the values of the placeholders on the page."""
    await Registry(redis, keys).set_base(
        BaseModel(name="base", version=BASE, max_model_len=8, source="b", created_s=0)
    )
    adapter = make_adapter("extract@ba01d64d1243", source="org/extract")
    await Registry(redis, keys).add_adapter(adapter)
    worker = await Actor(queue, redis, keys, "vm:1:a", [BASE, PIRATE]).register()
    running, ended, waiting = (make_job(PIRATE) for _ in range(3))
    for job in (running, ended):
        await queue.enqueue(job, LIMITS)
    claimed = {one.job.id: one for one in await worker.claim()}
    shown = tokens(running, 0, [5], "x")
    await queue.publish(worker.id, {API: [shown]}, [shown])
    await worker.finish(claimed[ended.id])
    await queue.enqueue(waiting, LIMITS)
    _, key_id = await new_key(KeyStore(redis, keys))
    day = (await redis.time())[0] // 86_400
    values = {"WORKER": worker.id, "JOB": running.id, "ENDED": ended.id}
    return {"{lk:main}:": keys.prefix, **values, "key:ID": f"key:{key_id}", "DAY": str(day)}


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("command", "printed"), COMMANDS)
async def test_a_documented_command_shows_what_the_page_says(
    redis: Redis, names: dict[str, str], command: str, printed: str
) -> None:
    id_of = names["ENDED"] if ":res:" in command else names["JOB"]
    line = re.sub(r"\b[0-9a-f]{32}\b", id_of, command)
    for name, value in names.items():
        line = line.replace(name, value)
    reply = await redis.execute_command(*shlex.split(line))
    values = reply if isinstance(reply, list) else [reply]
    assert bool(values) is bool(printed)
    assert None not in values
