"""Turns: order, limit, and what happens to waiting requests while Redis doesn't answer."""

import asyncio

import pytest

from api.http.turns import turns
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
