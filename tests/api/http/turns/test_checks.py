"""Checks of large bodies: at most one in each turn of the event loop, and turns of tenants."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from api.http.turns.checks import SMALL_BYTES, begin_check, check_slots
from api.http.turns.fair_slots import FairSlots

CHECK_S = 0.01


def request(slots: FairSlots, tenant: str, num_bytes: int) -> Any:
    state = SimpleNamespace(tenant=tenant, num_body_bytes=num_bytes)
    return SimpleNamespace(
        app=SimpleNamespace(state=SimpleNamespace(check_slots=slots)), state=state
    )


async def check(slots: FairSlots, tenant: str, num_bytes: int, order: list[str]) -> None:
    await begin_check(request(slots, tenant, num_bytes))
    order.append(tenant)
    end_s = time.perf_counter() + CHECK_S
    while time.perf_counter() < end_s:
        pass


async def test_the_event_loop_turns_between_two_checks_of_large_bodies() -> None:
    slots, order, num_turns = check_slots(), list[str](), 0

    async def turns() -> None:
        nonlocal num_turns
        while len(order) < 20:
            num_turns += 1
            await asyncio.sleep(0)

    large = (check(slots, "red", SMALL_BYTES + 1, order) for _ in range(20))
    await asyncio.gather(turns(), *large)
    assert num_turns >= 20


async def test_a_tenant_waits_for_one_check_of_each_other_tenant() -> None:
    slots, order = check_slots(), list[str]()
    sent = [*["red"] * 20, "blue"]
    await asyncio.gather(*(check(slots, tenant, SMALL_BYTES + 1, order) for tenant in sent))
    assert order.index("blue") <= 2


async def test_small_bodies_do_not_wait() -> None:
    slots, order = check_slots(), list[str]()
    async with slots.slot("red"):
        await asyncio.wait_for(check(slots, "blue", SMALL_BYTES, order), 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(check(slots, "blue", SMALL_BYTES + 1, order), 0.05)
    assert order == ["blue"]
