"""Program that forwards frames between two interfaces, and drops or delays some of them.

Usage: python -m ops.lab.chaos.network.relay INTERFACE INTERFACE. Each line of the input is a
`Rules` object in JSON, which applies to all later frames. The program answers each line with its
`FrameCounts` in JSON.
"""

import heapq
import os
import random
import select
import socket
import sys
import time
from dataclasses import dataclass

import orjson

ETH_P_ALL = 3
MAX_FRAME = 65_536


@dataclass(slots=True, kw_only=True)
class Rules:
    """Rules for dropping and delaying frames."""

    drop: float = 0.0
    """Probability that a frame is dropped."""
    delay_s: float = 0.0
    """Seconds by which each frame is delayed."""
    jitter_s: float = 0.0
    """Maximum seconds of an additional delay, which is random for each frame."""
    min_bytes: int = 0
    """Size of the smallest frame that is dropped or delayed."""
    only_outgoing: bool = False
    """Whether only the frames that the remote host sends are dropped or delayed."""


@dataclass(slots=True, kw_only=True)
class FrameCounts:
    """Numbers of frames since the start of the relay."""

    forwarded: int = 0
    dropped: int = 0
    delayed: int = 0


class Relay:
    """Forwards frames in both directions."""

    def __init__(self, first: socket.socket, second: socket.socket) -> None:
        self.rules = Rules()
        self.counts = FrameCounts()
        self._peers = {first: second, second: first}
        self._second = second
        self._waiting: list[tuple[float, int, socket.socket, bytes]] = []
        self._num_frames = 0

    def timeout_s(self) -> float | None:
        """Return the seconds until the next delayed frame is due; None if none is waiting."""
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def receive(self, source: socket.socket) -> None:
        """Receive a frame from `source`, and send, drop or delay it."""
        try:
            frame, address = source.recvfrom(MAX_FRAME)
        except OSError:  # the interface is down
            return
        if address[2] == socket.PACKET_OUTGOING:  # type: ignore[attr-defined, unused-ignore]
            return
        self._num_frames += 1
        rules = self.rules if self._is_affected(source, frame) else Rules()
        if random.random() < rules.drop:
            self.counts.dropped += 1
            return
        delay_s = rules.delay_s + random.random() * rules.jitter_s
        if delay_s:
            self.counts.delayed += 1
            due_s = time.monotonic() + delay_s
            heapq.heappush(self._waiting, (due_s, self._num_frames, self._peers[source], frame))
        else:
            self._send(self._peers[source], frame)

    def _is_affected(self, source: socket.socket, frame: bytes) -> bool:
        is_outgoing = source is self._second
        return len(frame) >= self.rules.min_bytes and (is_outgoing or not self.rules.only_outgoing)

    def send_due(self) -> None:
        """Send the delayed frames that are due."""
        now_s = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, target, frame = heapq.heappop(self._waiting)
            self._send(target, frame)

    def _send(self, target: socket.socket, frame: bytes) -> None:
        try:
            target.send(frame)
        except OSError:  # the interface is down or its queue is full: a network may lose frames
            self.counts.dropped += 1
        else:
            self.counts.forwarded += 1


def open_interface(name: str) -> socket.socket:
    """Return a socket that receives and sends the frames of an interface."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    opened.bind((name, 0))
    return opened


def main() -> None:
    """Forward frames until the input ends."""
    sockets = [open_interface(name) for name in sys.argv[1:]]
    relay = Relay(*sockets)
    control = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([*sockets, control], [], [], relay.timeout_s())
        relay.send_due()
        for each in ready:
            if isinstance(each, socket.socket):
                relay.receive(each)
        if control in ready:
            # A line is shorter than a pipe's buffer, and the next one follows only after an answer.
            line = os.read(control, MAX_FRAME)
            if not line:
                return
            relay.rules = Rules(**orjson.loads(line))
            sys.stdout.buffer.write(orjson.dumps(relay.counts) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
