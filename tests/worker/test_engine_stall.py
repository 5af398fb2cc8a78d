import asyncio
import time

import pytest

from worker.watchdog import until_stalled

LIMIT_S = 0.3


async def test_an_engine_that_finishes_its_steps_is_not_stalled() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(until_stalled(lambda: 0.1, LIMIT_S), 3 * LIMIT_S)


async def test_time_in_which_the_process_was_suspended_is_not_counted() -> None:
    start_s = time.monotonic()
    watching = asyncio.create_task(until_stalled(lambda: time.monotonic() - start_s, LIMIT_S))
    await asyncio.sleep(LIMIT_S / 10)
    time.sleep(2 * LIMIT_S)  # noqa: ASYNC251 -- suspends the process and its engine
    await asyncio.sleep(LIMIT_S / 10)
    assert not watching.done()
    watching.cancel()
