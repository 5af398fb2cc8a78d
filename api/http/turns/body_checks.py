"""Spreads checks of large request bodies over turns of the event loop, and is fair to tenants."""

import asyncio

from fastapi import Request

from api.http.turns.fair_slots import FairSlots

SMALL_BYTES = 16_384
"""Maximum size in bytes of a body that is checked at once, without a wait. `Pacer` limits how many
requests start in one turn of the event loop."""


def check_slots() -> FairSlots:
    """Return one slot for the checks of large bodies, which are therefore checked one by one."""
    return FairSlots(1)


async def begin_check(request: Request) -> None:
    """Wait until the body of a request may be parsed or validated.

    The check of a body takes a bounded CPU time, but blocks the event loop. The checks of many
    bodies in one turn of the loop would add up, and streams and requests of other tenants would
    wait for all of them. This function therefore lets one large body pass in each turn of the loop.
    Callers must check the body before they await anything else.
    """
    if request.state.num_body_bytes <= SMALL_BYTES:
        return
    slots: FairSlots = request.app.state.check_slots
    tenant = request.state.tenant or ""
    await slots.acquire(tenant)
    asyncio.get_running_loop().call_soon(slots.release, tenant)
