"""Program that runs chaos clients.

Usage: python -m ops.lab.chaos.load.client_process WORKLOAD. Each line of its input is a `Command`
in JSON. It prints a `Status` in JSON twice a second. After the command to stop, it ends once all
clients have their answers.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

import orjson

from ops.lab.chaos.load.exchange import Exchange
from ops.lab.chaos.load.front_ends import FrontEnds
from ops.lab.chaos.load.manners import StallingExchange, exchange_of
from ops.lab.chaos.load.record import Outcome, append
from ops.lab.chaos.load.requests import ChaosRequest, Manner
from ops.lab.chaos.load.sdk_exchange import SdkExchange, fits
from ops.lab.chaos.load.sdks.available import AvailableSdks
from ops.lab.chaos.load.sdks.sdk import Sdk
from ops.lab.chaos.load.workload import Workload
from shared.cancel_tasks import cancel_tasks

STATUS_S = 0.5
OFFICIAL_ONE_IN = 3
"""One in this many clients reads all its streams with an official client."""
STALLING = 900_000
"""Offset of the numbers of clients that stall, so that no other client has such a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command to the process."""

    stop: bool = False
    """Whether the clients send no further requests."""
    stall: int = 0
    """Number of additional clients that request one stream and stop reading it for a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """State of the process."""

    answered: int
    cancelled: int
    lost: int
    """Number of requests whose answer is lost. The two fields above count the other outcomes."""
    problems: int
    """Number of requests whose answer contradicts its request."""
    in_flight: int
    """Number of requests without an outcome."""
    stalled: int
    """Number of clients that stall at present."""
    unread_bytes: int
    """Number of bytes that have arrived for stalling clients and are unread."""


class Clients:
    """The clients of this process."""

    def __init__(self, workload: Workload, sdks: AvailableSdks) -> None:
        self._workload = workload
        self._sdks = sdks
        self._texts = workload.texts()
        self._rng = Random(f"{workload.seed}:{workload.first_client}:behaviour")
        self._front_ends = FrontEnds(workload.urls, self._rng)
        self._records = Path(workload.records)
        self._counts: Counter[str] = Counter()
        self._exchanges: set[Exchange] = set()
        self._stalling: list[asyncio.Task[None]] = []
        self._is_over = False

    async def run(self) -> None:
        """Run all clients until they have been told to stop and have finished."""
        first = self._workload.first_client
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read_commands(group))
            printing = group.create_task(self._print_status())
            numbers = range(first, first + self._workload.num_clients)
            clients = [group.create_task(self._work(number)) for number in numbers]
            await asyncio.wait(clients)
            if self._stalling:
                await asyncio.wait(self._stalling)
            await cancel_tasks(reading, printing)
        await self._front_ends.close()

    async def _work(self, number: int) -> None:
        """Send requests one after another, with an official client or with `Exchange`."""
        source = self._workload.source(number)
        turn, rest = divmod(number, OFFICIAL_ONE_IN)
        sdk = self._sdks.all[turn % len(self._sdks.all)] if rest == 0 else None
        while not self._is_over:
            if sdk:
                await self._ask_officially(source.draw(Manner.OFFICIAL, partial(fits, sdk)), sdk)
            else:
                await self._ask(source.draw())

    async def _ask_officially(self, request: ChaosRequest, sdk: Sdk) -> None:
        exchange = SdkExchange(request, self._front_ends, self._texts, self._rng, sdk)
        await self._run([exchange])

    async def _ask(self, request: ChaosRequest) -> None:
        num_copies = 2 if request.manner is Manner.TWICE else 1
        exchanges = [
            exchange_of(request, self._front_ends, self._texts, self._rng)
            for _ in range(num_copies)
        ]
        await self._run(exchanges)

    async def _run(self, exchanges: Sequence[Exchange]) -> None:
        """Run one request, or two with the same key, and record how each ended."""
        self._exchanges.update(exchanges)
        records = await asyncio.gather(*(each.run() for each in exchanges))
        self._exchanges.difference_update(exchanges)
        if len(exchanges) == 2:
            compare_copies(*exchanges)
        for record in records:
            self._counts[record.outcome] += 1
            self._counts["problems"] += bool(record.problems)
            append(record, self._records)

    async def _read_commands(self, group: asyncio.TaskGroup) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await reader.readline():
            command = Command(**orjson.loads(line))
            self._is_over |= command.stop
            for _ in range(command.stall):
                number = STALLING + self._workload.first_client + len(self._stalling)
                request = self._workload.source(number).draw(Manner.STALL)
                self._stalling.append(group.create_task(self._ask(request)))
        self._is_over = True  # the run has ended

    async def _print_status(self) -> None:
        while True:
            sys.stdout.buffer.write(orjson.dumps(asdict(self._status())) + b"\n")
            sys.stdout.buffer.flush()
            await asyncio.sleep(STATUS_S)

    def _status(self) -> Status:
        stalling = [e for e in self._exchanges if isinstance(e, StallingExchange) and e.unread]
        return Status(
            answered=self._counts[Outcome.ANSWERED],
            cancelled=self._counts[Outcome.CANCELLED],
            lost=self._counts[Outcome.LOST],
            problems=self._counts["problems"],
            in_flight=len(self._exchanges),
            stalled=len(stalling),
            unread_bytes=sum(exchange.num_unread_bytes for exchange in stalling),
        )


def compare_copies(first: Exchange, second: Exchange) -> None:
    """Add to the first record how the jobs or answers of two equal requests differ."""
    record, other = first.record, second.record
    if record.jobs != other.jobs:
        record.problems.append(f"one key has the jobs {record.jobs} and {other.jobs}")
    both = {record.outcome, other.outcome}
    if both == {Outcome.ANSWERED} and first.answer.texts != second.answer.texts:
        record.problems.append("two requests with one key got different answers")


async def main(workload: Workload) -> None:
    """Run the clients of a workload."""
    sdks = await AvailableSdks.start(Path(workload.records).with_suffix(".sdks.log"))
    await Clients(workload, sdks).run()
    await sdks.close()


if __name__ == "__main__":
    asyncio.run(main(Workload.read(Path(sys.argv[1]))))
