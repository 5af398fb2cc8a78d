"""Lines of event streams end at line feeds only."""

from collections.abc import AsyncIterator

import httpx
import pytest

from ops.server_client import sse_lines


async def lines_of(*pieces: bytes) -> list[str]:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [line async for line in sse_lines(httpx.Response(200, content=stream()))]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b"])
async def test_characters_that_end_lines_elsewhere_are_part_of_the_line(character: str) -> None:
    line = f'data: {{"text": "a{character}b"}}'
    assert await lines_of(f"{line}\n\n".encode()) == [line, ""]


async def test_lines_may_arrive_in_pieces_and_end_with_a_carriage_return() -> None:
    raw = "data: 中\r\n".encode()
    assert await lines_of(raw[:7], raw[7:-1], raw[-1:]) == ["data: 中"]


async def test_a_line_that_is_cut_off_is_dropped() -> None:
    assert await lines_of(b"id: 1\ndata: {") == ["id: 1"]
