"""Slots: their number, the turns of tenants, and requests that are cancelled."""

import asyncio
from collections import Counter
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from api.http.turns.fair_slots import FairSlots

TENANTS = st.sampled_from(["red", "blue", "green"])


async def hold(slots: FairSlots, tenant: str, order: list[str]) -> None:
    async with slots.slot(tenant):
        order.append(tenant)
        await asyncio.sleep(0)


async def test_a_tenant_waits_for_one_request_of_each_other_tenant_not_for_all() -> None:
    slots, order = FairSlots(1), list[str]()
    sent = [*["red"] * 50, *["green"] * 50, "blue"]
    await asyncio.gather(*(hold(slots, tenant, order) for tenant in sent))
    assert order.index("blue") <= 3
    assert Counter(order) == Counter(sent)


async def test_one_tenant_may_hold_only_its_share() -> None:
    slots = FairSlots(4, max_per_tenant=2)
    order: list[str] = []
    async with slots.slot("red"), slots.slot("red"):
        third = asyncio.create_task(hold(slots, "red", order))
        await asyncio.wait_for(hold(slots, "blue", order), 5)
        assert order == ["blue"]
    await asyncio.wait_for(third, 5)
    assert order == ["blue", "red"]


async def test_the_tenant_that_holds_the_fewest_slots_is_next() -> None:
    slots = FairSlots(2)
    order: list[str] = []
    async with slots.slot("red"):
        async with slots.slot("red"):
            waiting = [asyncio.create_task(hold(slots, t, order)) for t in ("red", "blue")]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
    assert order == ["blue", "red"]


@given(
    num_slots=st.integers(1, 3),
    steps=st.lists(
        st.tuples(st.sampled_from(["ask", "cancel", "end"]), TENANTS, st.integers(0, 5)),
        max_size=40,
    ),
)
def test_no_slot_is_lost_or_given_twice(num_slots: int, steps: list[tuple[str, str, int]]) -> None:
    asyncio.run(_check_slots(num_slots, steps))


async def _check_slots(num_slots: int, steps: list[tuple[str, str, int]]) -> None:
    slots, held = FairSlots(num_slots), set[int]()
    requests: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def request(number: int, tenant: str, end: asyncio.Event) -> None:
        async with slots.slot(tenant):
            held.add(number)
            assert len(held) <= num_slots
            with suppress(asyncio.CancelledError):
                await end.wait()
            held.remove(number)

    for step, tenant, which in steps:
        if step == "ask":
            end = asyncio.Event()
            task = asyncio.create_task(request(len(requests), tenant, end))
            requests.append((task, end))
        elif which < len(requests):
            task, end = requests[which]
            task.cancel() if step == "cancel" else end.set()
        await asyncio.sleep(0)
    for _, end in requests:
        end.set()
    await asyncio.gather(*(task for task, _ in requests), return_exceptions=True)
    async with asyncio.timeout(60):
        for tenant in ("red", "blue"):  # every slot is free again
            tasks = [hold(slots, tenant, []) for _ in range(num_slots)]
            await asyncio.gather(*tasks)
