"""How requests of all tenants share the event loop, slots and connections."""

import asyncio
import time
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from key_support import bearer
from pydantic import SecretStr
from raw_client import BODY, CHAT, with_settings

from api.http.turns import turns
from api.http.turns.body_checks import SMALL_BYTES, begin_check, check_slots
from api.http.turns.fair_slots import FairSlots
from api.http.turns.pacing import Pacer
from api.http.turns.turns import Turns
from shared.errors import RedisUnavailable


async def test_requests_take_turns_in_order_and_a_limited_number_at_a_time() -> None:
    limited, order, running = Turns(2), list[int](), 0

    async def one(number: int) -> None:
        nonlocal running
        async with limited.turn("red"):
            running += 1
            order.append(number)
            assert running <= 2
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(one(number) for number in range(20)))
    assert order == list(range(20))


async def outcomes(limited: Turns, failures: list[bool], *, wait_s: float) -> list[bool]:
    """Let requests take turns, and return which of them succeeded. `failures` are what they meet.

    A request whose entry is True fails after `wait_s`.
    """

    async def one(fails: bool) -> bool:
        try:
            async with limited.turn("red"):
                if fails:
                    await asyncio.sleep(wait_s)
                    raise RedisUnavailable("no answer")
        except RedisUnavailable:
            return False
        return True

    return await asyncio.gather(*map(one, failures))


async def test_if_redis_does_not_answer_those_who_wait_fail_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "STALL_S", 0.05)
    limited = Turns(1)
    assert await outcomes(limited, [True, False, False], wait_s=0.1) == [False, False, False]
    assert await outcomes(limited, [False, False], wait_s=0) == [True, True]


async def test_a_single_failure_does_not_fail_those_who_wait() -> None:
    assert await outcomes(Turns(1), [False, True, False], wait_s=0) == [True, False, True]
    assert await outcomes(Turns(1), [True, False], wait_s=0) == [False, True]


async def test_a_request_that_is_cancelled_while_it_waits_gives_up_its_turn() -> None:
    limited = Turns(1)
    async with limited.turn("red"):
        waiting = asyncio.create_task(_hold(limited))
        await asyncio.sleep(0)
        waiting.cancel()
    assert await outcomes(limited, [False], wait_s=0) == [True]


async def _hold(limited: Turns) -> None:
    async with limited.turn("red"):
        pass


async def start_all(pacer: Pacer, count: int) -> list[tuple[int, int]]:
    """Start requests at the same moment. Return each one's number and its turn of the loop."""
    turn, started = 0, list[tuple[int, int]]()
    loop = asyncio.get_running_loop()

    def count_turn() -> None:
        nonlocal turn
        turn += 1
        if len(started) < count:
            loop.call_soon(count_turn)

    async def one(number: int) -> None:
        await pacer.start()
        started.append((number, turn))

    loop.call_soon(count_turn)
    await asyncio.gather(*(one(number) for number in range(count)))
    return started


async def test_requests_start_in_order_and_a_few_in_each_turn() -> None:
    started = await start_all(Pacer(4), 50)
    assert [number for number, _ in started] == list(range(50))
    turns = [turn for _, turn in started]
    assert max(turns.count(turn) for turn in turns) <= 4


async def test_a_few_requests_start_at_once() -> None:
    started = await start_all(Pacer(4), 4)
    assert len({turn for _, turn in started}) == 1


async def test_a_cancelled_request_leaves_its_place_to_the_next() -> None:
    pacer = Pacer(1)
    started, cancelled, waiting = (asyncio.create_task(pacer.start()) for _ in range(3))
    asyncio.get_running_loop().call_soon(cancelled.cancel)
    await asyncio.wait_for(waiting, 60)
    assert started.done()
    assert cancelled.cancelled()


async def test_requests_start_at_once_after_a_pause() -> None:
    pacer = Pacer(1)
    for _ in range(3):
        await asyncio.wait_for(pacer.start(), 60)


TENANTS = st.sampled_from(["red", "blue", "green"])


async def hold(slots: FairSlots, tenant: str, order: list[str]) -> None:
    async with slots.slot(tenant):
        order.append(tenant)
        await asyncio.sleep(0)


async def test_one_tenant_may_hold_only_its_share() -> None:
    slots = FairSlots(4, max_per_tenant=2)
    order: list[str] = []
    async with slots.slot("red"), slots.slot("red"):
        third = asyncio.create_task(hold(slots, "red", order))
        await asyncio.wait_for(hold(slots, "blue", order), 5)
        assert order == ["blue"]
    await asyncio.wait_for(third, 60)
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


CHECK_S = 0.01


def request_of(slots: FairSlots, tenant: str, num_bytes: int) -> Any:
    state = SimpleNamespace(tenant=tenant, num_body_bytes=num_bytes)
    return SimpleNamespace(
        app=SimpleNamespace(state=SimpleNamespace(check_slots=slots)), state=state
    )


async def check(slots: FairSlots, tenant: str, num_bytes: int, order: list[str]) -> None:
    await begin_check(request_of(slots, tenant, num_bytes))
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
        await asyncio.wait_for(check(slots, "blue", SMALL_BYTES, order), 60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(check(slots, "blue", SMALL_BYTES + 1, order), 0.05)
    assert order == ["blue"]


RED, BLUE = "red-" + "r" * 20, "blue-" + "b" * 20


@with_settings(api_keys=(SecretStr(f"red:{RED}"), SecretStr(f"blue:{BLUE}")), max_connections=6)
async def test_a_tenant_may_use_half_of_the_connections(direct: httpx.AsyncClient) -> None:
    post = partial(direct.post, CHAT, json=BODY, headers=bearer(RED))
    sent = [asyncio.create_task(post()) for _ in range(4)]
    (first,), waiting = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
    refused = first.result()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "--max-connections" in refused.json()["error"]["message"]
    assert (await direct.get("/v1/models", headers=bearer(RED))).status_code == 429
    assert (await direct.get("/v1/models", headers=bearer(BLUE))).status_code == 200
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await direct.get("/v1/models", headers=bearer(RED))).status_code == 200


@with_settings(max_connections=2)
async def test_requests_without_keys_are_not_limited(direct: httpx.AsyncClient) -> None:
    replies = await asyncio.gather(*(direct.get("/v1/models") for _ in range(10)))
    assert {reply.status_code for reply in replies} == {200}
