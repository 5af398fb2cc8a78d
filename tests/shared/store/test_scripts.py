"""The probe of the scripts' costs, whole, on a small pool: its times mean nothing, but it runs."""

from ops.bench.scripts.cases import measure_scripts
from ops.bench.scripts.costs import Meter
from ops.bench.scripts.large_pool import LargePool, Sizes
from ops.local.embedded_redis import EmbeddedRedis
from shared.store.scripts import script_names

SIZES = Sizes(workers=20, adapters=200, waiting=1000, running=64)


async def test_every_script_is_measured_in_a_small_pool(own_server: EmbeddedRedis) -> None:
    calls = await measure_scripts(own_server.url, SIZES)
    assert {call.script for call in calls} == set(script_names())
    assert all(call.commands > 0 and call.ms > 0 for call in calls)


async def test_commands_are_those_that_one_call_makes(own_server: EmbeddedRedis) -> None:
    meter = Meter(own_server.url)
    await meter.load_scripts()
    pool = LargePool(meter, SIZES)
    wid = await pool.join()
    with meter.measuring("one", "leave"):
        await pool.queue.leave(wid)
    await meter.aclose()
    (call,) = meter.calls
    assert (call.script, call.situation, call.commands) == ("leave", "one", 5)
