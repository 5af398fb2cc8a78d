"""Frames in which a worker and its template processes exchange messages.

A frame is the number of its bytes (8 bytes, little-endian) and these bytes.
"""

import os
import select
import struct
import time

_HEAD = struct.Struct("<Q")
_PIECE_BYTES = 1 << 16


def write_frame(file: int, content: bytes) -> None:
    """Write a frame to a file descriptor. Raises BrokenPipeError if the reader has ended."""
    left = memoryview(_HEAD.pack(len(content)) + content)
    while left:
        left = left[os.write(file, left) :]


def read_frame(file: int, timeout_s: float | None = None) -> bytes | None:
    """Read a frame, or return None if the other process ends or `timeout_s` seconds pass first."""
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    head = _read(file, _HEAD.size, end_s)
    if head is None:
        return None
    (num_bytes,) = _HEAD.unpack(head)
    return _read(file, num_bytes, end_s)


def _read(file: int, num_bytes: int, end_s: float | None) -> bytes | None:
    pieces = []
    while num_bytes:
        if end_s is not None and not _is_readable(file, end_s - time.monotonic()):
            return None
        piece = os.read(file, min(num_bytes, _PIECE_BYTES))
        if not piece:
            return None
        pieces.append(piece)
        num_bytes -= len(piece)
    return b"".join(pieces)


def _is_readable(file: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))
