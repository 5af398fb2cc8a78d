"""Commands of each script in a small pool, compared with the bound that its comment states."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import script_cases as cases
from large_pool import SHORT_LEASE_MS, LargePool, Meter, stated_bound

from ops.local.embedded_redis import EmbeddedRedis
from shared.store.redis.scripts import script_names, source

CASES: tuple[Callable[[LargePool], Awaitable[None]], ...] = (
    *(cases.arrivals, cases.claims_of_own, cases.claims_of_foreign),
    *(cases.claims_in_vain, cases.mixed_pool, cases.running, cases.followed),
    *(cases.given_back, cases.residents, cases.shrinking, cases.sweeps),
    *(cases.deaths, cases.overdue, cases.quarantine, cases.names),
    *(cases.retired, cases.small_scripts, cases.batches, cases.files),
    *(cases.operators_pauses, cases.many_records, cases.versions, cases.another_base),
)
"""All cases in order. `another_base` must be last, because it leaves the pool without workers."""


@pytest.fixture
async def meter(own_server: EmbeddedRedis) -> AsyncIterator[Meter]:
    """A client of a Redis that no other client uses."""
    meter = Meter(own_server.url)
    await meter.load_scripts()
    yield meter
    await meter.aclose()


@pytest.mark.slow
async def test_every_script_is_measured_and_keeps_its_stated_bound(meter: Meter) -> None:
    pool = LargePool(meter)
    await pool.fill()
    for case in CASES:
        await pool.renew(SHORT_LEASE_MS)
        meter.situation = case.__name__
        await case(pool)
    assert {call.script for call in meter.calls} == set(script_names())
    assert all(call.commands > 0 for call in meter.calls)
    assert [
        call for call in meter.calls if (most := max_commands(call.script)) and call.commands > most
    ] == []


def test_the_bound_of_most_scripts_is_a_number() -> None:
    assert max_commands("claim") == 3000
    assert max_commands("hand_over") == 85 * 16
    assert sum(max_commands(name) is not None for name in script_names()) > len(script_names()) / 2


def test_every_script_states_how_many_commands_it_makes() -> None:
    assert stated_bound("finish") == "60"
    assert stated_bound("hand_over") == "85 each"
    assert stated_bound("beat") == "55 +"
    assert [name for name in script_names() if not stated_bound(name)] == ["durability_barrier"]


def max_commands(script: str) -> int | None:
    """Return the stated bound of one call; None if it depends on more than the size of a page."""
    number, _, unit = stated_bound(script).partition(" ")
    page = re.search(r"callers send (\d+) at a time", source(script))
    if unit == "each" and page:
        return int(number) * int(page[1])
    return int(number.replace(",", "")) if number and not unit else None


async def test_commands_are_those_that_one_call_makes(meter: Meter) -> None:
    pool = LargePool(meter)
    await pool.queue.leave(await pool.join())
    assert [call.commands for call in meter.calls if call.script == "leave"] == [8]
