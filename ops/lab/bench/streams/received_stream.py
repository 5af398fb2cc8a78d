"""One streamed answer of the simulated engine, with the arrival time of each token."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from worker.engine_simulated.tokens import TEXT_CHARS


@dataclass(slots=True)
class ReceivedStream:
    """Receives the events of one answer. Times are in seconds of `time.monotonic`.

    All processes of a machine share this clock.
    """

    on_tokens: Callable[["ReceivedStream", int], None] | None = None
    """Called with the stream and the number of its new tokens."""
    sent_s: float = field(default_factory=time.monotonic)
    job: str = ""
    """Job id from the response headers."""
    status: int = 0
    """HTTP status; 0 before the headers have arrived."""
    token_s: list[float] = field(default_factory=list)
    """Arrival time of each token."""
    error: str | None = None

    @property
    def first_token_s(self) -> float:
        """Seconds from sending the request to its first token, which must have arrived."""
        return self.token_s[0] - self.sent_s

    def begin(self, status: int, job: str) -> None:
        """Accept the response headers."""
        self.status, self.job = status, job

    def receive(self, piece: bytes) -> None:
        """Accept a piece of the body. A piece of a stream consists of whole events."""
        if self.status != 200:
            self.error = f"HTTP {self.status}: {piece[:200].decode(errors='replace')}"
            return
        now_s, num_tokens = time.monotonic(), 0
        for line in piece.split(b"\n"):
            if line.startswith(b"data: {"):
                num_tokens += self._num_tokens(orjson.loads(line[len(b"data: ") :]))
        if num_tokens:
            self.token_s.extend([now_s] * num_tokens)
            if self.on_tokens:
                self.on_tokens(self, num_tokens)

    def _num_tokens(self, chunk: dict[str, Any]) -> int:
        if chunk.get("error"):
            self.error = str(chunk["error"])[:200]
        return sum(len(_text(choice)) for choice in chunk.get("choices", ())) // TEXT_CHARS


def _text(choice: dict[str, Any]) -> str:
    """Return the new text of a choice of a completion or a chat."""
    return (choice["text"] if "text" in choice else choice["delta"].get("content")) or ""
