"""Commands of each script in a small pool, compared with the bound that its comment states."""

import re

import pytest
from large_pool import LargePool, Sizes
from script_cases import measure_scripts
from script_meter import Meter, stated_bound

from ops.local.embedded_redis import EmbeddedRedis
from shared.store.redis.scripts import script_names, source

SIZES = Sizes(workers=20, adapters=200, waiting=1000, running=64)


@pytest.mark.slow
async def test_every_script_is_measured_and_keeps_its_stated_bound(
    own_server: EmbeddedRedis,
) -> None:
    calls = await measure_scripts(own_server.url, SIZES)
    assert {call.script for call in calls} == set(script_names())
    assert all(call.commands > 0 and call.ms > 0 for call in calls)
    over = [call for call in calls if (most := max_commands(call.script)) and call.commands > most]
    assert over == []


def test_the_bound_of_most_scripts_is_a_number() -> None:
    assert max_commands("claim") == 3000
    assert max_commands("hand_on") == 73 * 16
    assert sum(max_commands(name) is not None for name in script_names()) > len(script_names()) / 2


def test_every_script_states_how_many_commands_it_makes() -> None:
    assert stated_bound("finish") == "60"
    assert stated_bound("hand_on") == "73 each"
    assert stated_bound("beat") == "55 +"
    assert [name for name in script_names() if not stated_bound(name)] == ["durability_barrier"]


def max_commands(script: str) -> int | None:
    """Return the stated bound of one call; None if it depends on more than the size of a page."""
    number, _, unit = stated_bound(script).partition(" ")
    page = re.search(r"callers send (\d+) at a time", source(script))
    if unit == "each" and page:
        return int(number) * int(page[1])
    return int(number.replace(",", "")) if number and not unit else None


async def test_commands_are_those_that_one_call_makes(own_server: EmbeddedRedis) -> None:
    meter = Meter(own_server.url)
    await meter.load_scripts()
    pool = LargePool(meter, SIZES)
    wid = await pool.join()
    with meter.measuring("one", "leave"):
        await pool.queue.leave(wid)
    await meter.aclose()
    (call,) = meter.calls
    assert (call.script, call.situation, call.commands) == ("leave", "one", 8)
