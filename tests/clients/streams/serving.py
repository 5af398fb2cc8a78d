"""Lets a client library read streams for another process.

ops/lab/chaos/load/sdks/process.py describes the lines.
"""

import asyncio
import contextlib
import json
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

Request = dict[str, Any]
Parts = AsyncIterator[dict[str, Any]]
Read = Callable[[Request], Parts]
"""Yields the parts of the stream that a request asks for."""


def serve(apis: Mapping[str, Read]) -> None:
    """Read streams of these APIs until the input ends."""
    with contextlib.redirect_stdout(sys.stderr):  # LiteLLM prints hints
        asyncio.run(_serve(apis))


async def _serve(apis: Mapping[str, Read]) -> None:
    reader = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    print("{}", file=sys.__stdout__, flush=True)
    async with asyncio.TaskGroup() as group:
        while line := await reader.readline():
            request = json.loads(line)
            group.create_task(_read(apis[request["api"]], request))


async def _read(read: Read, request: dict[str, Any]) -> None:
    try:
        async for part in read(request):
            _print(request, part)
        _print(request, {"end": True})
    except Exception as error:  # noqa: BLE001 -- the other process reports it
        traceback.print_exc()
        _print(request, {"choked": repr(error)})


def _print(request: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
    print(json.dumps({"id": request["id"], **reply}), file=sys.__stdout__, flush=True)
