"""A supervised command is started again whenever it ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from queue_support import eventually

from ops.lab.chaos.cluster.supervised import Supervised
from shared.cancel_tasks import cancel_tasks

SLEEPS = (sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)")


@pytest.fixture
async def supervised(tmp_path: Path) -> AsyncIterator[Supervised]:
    one = Supervised("sleeper", SLEEPS, os.environ, tmp_path / "log")
    task = asyncio.create_task(one.keep_running())
    await eventually(lambda: has_started(one, 1))
    yield one
    await one.stop()
    await cancel_tasks(task)
    assert not one.is_running


def has_started(one: Supervised, times: int) -> bool:
    return one.log.exists() and one.log_text().count("up") == times


async def test_a_killed_process_is_replaced_and_its_end_recorded(supervised: Supervised) -> None:
    first = supervised.pid
    supervised.signal(signal.SIGKILL)
    await eventually(lambda: has_started(supervised, 2))
    assert supervised.pid != first
    await supervised.stop()  # which isn't recorded as an end
    assert [end.reason for end in supervised.ends] == ["SIGKILL"]


async def test_suspension_is_visible(supervised: Supervised) -> None:
    supervised.signal(signal.SIGSTOP)
    await eventually(lambda: supervised.is_suspended)
    supervised.signal(signal.SIGCONT)
    await eventually(lambda: not supervised.is_suspended and supervised.is_running)
    assert supervised.ends == []
