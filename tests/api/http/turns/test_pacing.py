"""The number of requests that start in one turn of the event loop."""

import asyncio

from api.http.turns.pacing import Pacer


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
    await asyncio.wait_for(waiting, 5)
    assert started.done()
    assert cancelled.cancelled()


async def test_requests_start_at_once_after_a_pause() -> None:
    pacer = Pacer(1)
    for _ in range(3):
        await asyncio.wait_for(pacer.start(), 5)
