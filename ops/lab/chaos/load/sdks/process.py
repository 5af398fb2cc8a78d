"""Client libraries that run in a separate program, in another language or environment.

The program prints an empty JSON object once it is ready. Each line of its input is an `SdkRequest`
in JSON with two additional fields, `id` and `library`. For each request, the program prints lines
in JSON, which contain the request's `id` and one of:

* the fields of a `Part`,
* `end`: the stream is complete,
* `error`, and perhaps `status`: the library raised an error of its own,
* `choked`: the library couldn't read the stream.

The program ends when its input ends.
"""

import asyncio
import itertools
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from ops.lab.chaos.load.sdks.sdk import Api, Part, SdkChoked, SdkError, SdkRequest
from shared.cancel_tasks import cancel_tasks
from shared.errors import LorikeetError

VENV = Path(__file__).parents[5] / ".venv-clients"
"""Environment in which `make clients` installs libraries for Python and Node."""
NODE_PROGRAM = Path(__file__).with_name("node.mjs")
LINE_BYTES = 1 << 20


class ProgramEnded(LorikeetError):
    """The program has ended although streams are open."""


class SdkProgram:
    """A running program that contains client libraries."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self._open: dict[int, asyncio.Queue[dict[str, Any] | None]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, words: Sequence[str], log: Path, **variables: str) -> "SdkProgram":
        """Start a program in the clients' environment, and return once it is ready.

        Args:
            words: the command.
            log: file for the program's standard error.
            variables: further variables of its environment.

        Raises:
            ProgramEnded: the program can't start. `log` says why.
        """
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd=VENV,  # Node finds packages relative to it
                env={**os.environ, "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}", **variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                limit=LINE_BYTES,
                process_group=0,  # the command may be a script that starts the program
            )
        assert process.stdout is not None
        if not await process.stdout.readline():
            raise ProgramEnded(f"the program of a client library has ended: {log}")
        return cls(process)

    async def stream(self, request: SdkRequest, library: str) -> AsyncIterator[Part]:
        """Yield the parts of a stream that the library named `library` reads."""
        number = next(self._ids)
        replies = self._open[number] = asyncio.Queue()
        try:
            await self._send({"id": number, "library": library, **asdict(request)})
            while not (reply := await self._reply(replies)).get("end"):
                yield _part(reply)
        finally:
            del self._open[number]

    async def close(self) -> None:
        """End the program."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await cancel_tasks(self._reading)

    async def _send(self, line: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(line) + b"\n")
        await self._process.stdin.drain()

    async def _reply(self, replies: "asyncio.Queue[dict[str, Any] | None]") -> dict[str, Any]:
        reply = None if self._reading.done() else await replies.get()
        if reply is None:
            raise ProgramEnded("the program of a client library has ended")
        return reply

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                reply = orjson.loads(line)
                if replies := self._open.get(reply["id"]):
                    replies.put_nowait(reply)
        finally:
            for replies in self._open.values():
                replies.put_nowait(None)


class ProgramSdk:
    """One client library that runs in a program."""

    def __init__(self, program: SdkProgram, name: str, apis: frozenset[Api]) -> None:
        self._program = program
        self.name = name
        self.apis = apis

    def stream(self, request: SdkRequest) -> AsyncIterator[Part]:
        """Yield the parts of a stream. The first one names the job."""
        return self._program.stream(request, self.name)


def has_node_clients() -> bool:
    """Return whether `make clients` has installed the clients for Node."""
    return (VENV / ".ready").exists()


async def start_node(log: Path) -> SdkProgram:
    """Start the program with openai and @anthropic-ai/sdk for Node."""
    words = ["node", "--input-type=module", "--eval", NODE_PROGRAM.read_text()]
    return await SdkProgram.start(words, log)


def node_sdks(program: SdkProgram) -> list[ProgramSdk]:
    """Return the libraries of the program for Node."""
    openai_apis = frozenset((Api.CHAT, Api.COMPLETIONS, Api.RESPONSES))
    return [
        ProgramSdk(program, "openai for Node", openai_apis),
        ProgramSdk(program, "anthropic for TypeScript", frozenset((Api.MESSAGES,))),
    ]


def _part(reply: dict[str, Any]) -> Part:
    if "error" in reply:
        raise SdkError(reply["error"], reply.get("status"))
    if "choked" in reply:
        raise SdkChoked(reply["choked"])
    del reply["id"]
    return Part(**reply)
