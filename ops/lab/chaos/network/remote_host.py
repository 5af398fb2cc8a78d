"""A network namespace that is connected to this one only through a relay."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from ops.lab.chaos.network.own_namespace import run
from ops.lab.chaos.network.relay import FrameCounts, Rules
from ops.lab.chaos.polling import until
from shared.die_with_parent import die_with_parent

ANSWER_S = 5.0


class RemoteHost:
    """Stands in for another machine: its processes reach this one through the relay.

    This process must have a network namespace of its own; see `enter_own_namespace`.
    """

    def __init__(self, number: int) -> None:
        """Create the host with this number, which is at least 1. `start` connects the host."""
        self.address = f"10.77.{number}.2"
        """Address of the host's processes."""
        self._gateway = f"10.77.{number}.1"
        self._number = number
        self._holder: subprocess.Popen[bytes] | None = None
        self._relay: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Create the namespaces and interfaces, and start the relay.

        Raises:
            SettingsError: a command that changes the network failed.
        """
        self._holder = _new_namespace()
        middle = _new_namespace()
        for each in (self._holder, middle):
            await until(lambda each=each: _has_own_namespace(each), "a network namespace exists")  # type: ignore[misc]
        await asyncio.to_thread(self._connect, self._holder.pid, middle.pid)
        left, right = self._middle_names
        self._relay = await asyncio.create_subprocess_exec(
            *inside(middle.pid, [sys.executable, "-m", "ops.lab.chaos.network.relay", left, right]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            process_group=0,
            preexec_fn=die_with_parent,
        )
        await self.apply(Rules())
        middle.kill()  # the relay keeps its namespace alive
        middle.wait()

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` on this host. The process keeps its id."""
        assert self._holder is not None
        return inside(self._holder.pid, argv)

    async def apply(self, rules: Rules) -> FrameCounts:
        """Apply rules to all further frames, and return the numbers of frames so far."""
        assert self._relay is not None
        assert self._relay.stdin is not None
        assert self._relay.stdout is not None
        async with self._turn, asyncio.timeout(ANSWER_S):
            self._relay.stdin.write(orjson.dumps(rules) + b"\n")
            await self._relay.stdin.drain()
            answer: dict[str, Any] = orjson.loads(await self._relay.stdout.readline())
            return FrameCounts(**answer)

    async def stop(self) -> None:
        """Disconnect the host. Its processes must have ended."""
        if self._relay is not None:
            self._relay.kill()
            await self._relay.wait()
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()

    @property
    def _middle_names(self) -> tuple[str, str]:
        """Names of the relay's interfaces."""
        return f"near{self._number}", f"far{self._number}"

    def _connect(self, holder: int, middle: int) -> None:
        left, right = self._middle_names
        here, there = f"host{self._number}", "host"
        for end, relayed in ((here, left), (there, right)):
            run("ip", "link", "add", end, "type", "veth", "peer", "name", relayed)
            run("ip", "link", "set", relayed, "netns", str(middle))
            run(*inside(middle, ["ip", "link", "set", relayed, "up"]))
        run("ip", "link", "set", there, "netns", str(holder))
        for pid, name, address in (
            (os.getpid(), here, self._gateway),
            (holder, there, self.address),
        ):
            run(*inside(pid, ["ip", "address", "add", f"{address}/24", "dev", name]))
            run(*inside(pid, [sys.executable, "-m", "ops.lab.chaos.network.offload", name]))
            run(*inside(pid, ["ip", "link", "set", name, "up"]))
        run(*inside(holder, ["ip", "link", "set", "lo", "up"]))
        run(*inside(holder, ["ip", "route", "add", "default", "via", self._gateway]))


def inside(pid: int, argv: Sequence[str]) -> list[str]:
    """Return the command that runs `argv` in the network namespace of process `pid`."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *argv]


def _new_namespace() -> "subprocess.Popen[bytes]":
    """Start a process that keeps a new network namespace alive."""
    return subprocess.Popen(
        ["unshare", "--net", "--", "sleep", "infinity"],
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


async def _has_own_namespace(process: "subprocess.Popen[bytes]") -> bool:
    own, other = Path("/proc/self/ns/net"), Path(f"/proc/{process.pid}/ns/net")
    return own.readlink() != other.readlink()  # noqa: ASYNC240 -- procfs doesn't block
