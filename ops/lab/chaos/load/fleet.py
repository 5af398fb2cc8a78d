"""Starts the client processes, and sends them commands."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import orjson

from ops.lab.chaos.load.client_process import Command, Status
from ops.lab.chaos.load.record import Record, read_records
from ops.lab.chaos.load.workload import Workload
from shared.die_with_parent import die_with_parent
from shared.errors import LorikeetError


class ClientsFailed(LorikeetError):
    """A client process ended early. The message names its log."""


class Fleet:
    """The client processes of a run."""

    def __init__(self, workloads: Sequence[Workload], folder: Path) -> None:
        self._workloads = workloads
        self._folder = folder
        self._processes: list[asyncio.subprocess.Process] = []
        self._statuses: list[Status] = []
        self._readers: list[asyncio.Task[None]] = []
        self._is_stopping = False

    async def start(self) -> None:
        """Start the processes, whose clients send their first requests at once."""
        for number, workload in enumerate(self._workloads):
            file = self._folder / f"workload-{number}.json"
            workload.write(file)
            with (self._folder / f"clients-{number}.log").open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "ops.lab.chaos.load.client_process", str(file)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    process_group=0,
                    preexec_fn=die_with_parent,
                )
            self._processes.append(process)
            self._statuses.append(Status(**{field.name: 0 for field in fields(Status)}))
            self._readers.append(asyncio.create_task(self._read_status(number)))

    @property
    def status(self) -> Status:
        """Statuses of all client processes, added up field by field."""
        rows = [asdict(status) for status in self._statuses]
        return Status(**{field.name: sum(r[field.name] for r in rows) for field in fields(Status)})

    async def stall(self, count: int) -> None:
        """Make about `count` additional clients stop reading their streams."""
        share = max(1, count // len(self._processes))
        await self._send(Command(stall=share))

    async def stop(self) -> None:
        """Stop sending requests, and return when all clients have their answers.

        Raises:
            ClientsFailed: a client process has failed.
        """
        self._is_stopping = True
        await self._send(Command(stop=True))
        await asyncio.gather(*self._readers)
        for number, process in enumerate(self._processes):
            if await process.wait():
                raise self._failure(number)

    def kill(self) -> None:
        """Kill the processes that still run."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()

    def check(self) -> None:
        """Check that all processes run.

        Raises:
            ClientsFailed: a process has ended.
        """
        for number, reader in enumerate(self._readers):
            if reader.done() and not self._is_stopping:
                raise self._failure(number)

    def records(self) -> list[Record]:
        """Return the records of all requests that have ended."""
        return [
            record
            for workload in self._workloads
            for record in read_records(Path(workload.records))
        ]

    async def _send(self, command: Command) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(orjson.dumps(command) + b"\n")
            await process.stdin.drain()

    async def _read_status(self, number: int) -> None:
        stdout = self._processes[number].stdout
        assert stdout is not None
        while line := await stdout.readline():
            self._statuses[number] = Status(**orjson.loads(line))

    def _failure(self, number: int) -> ClientsFailed:
        return ClientsFailed(f"a client process ended: {self._folder}/clients-{number}.log")
