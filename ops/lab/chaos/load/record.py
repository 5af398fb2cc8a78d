"""The record that a client writes about each of its requests."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

import orjson

OWN_READER = "own reader"


class Outcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    """The client has the whole answer."""
    CANCELLED = "cancelled"
    """The client has cancelled its job."""
    LOST = "lost"
    """The client doesn't have its answer."""


@dataclass(slots=True, kw_only=True)
class Record:
    """One request, from the client's point of view. Times are of the monotonic clock."""

    key: str
    manner: str
    is_stream: bool
    sent_s: float
    jobs: list[str] = field(default_factory=list)
    """Ids of the jobs that front ends named for this request."""
    outcome: Outcome = Outcome.LOST
    reason: str = ""
    """Why the answer is lost."""
    problems: list[str] = field(default_factory=list)
    """Contradictions in the answer, such as missing tokens."""
    num_resumes: int = 0
    """Number of connections that the client opened after the first accepted one."""
    num_refusals: int = 0
    """Number of refusals before the request was accepted: 429, 503, or no connection."""
    num_replays: int = 0
    """Number of responses whose headers say that an earlier request created the job."""
    client: str = OWN_READER
    """Reader of the stream: an official client, or the run's own reader in `sse.py`."""
    broken_s: float = 0.0
    """Time at which the stream of an official client broke; 0 if it didn't."""
    break_reason: str = ""
    ended_s: float = 0.0
    arrivals_ms: list[int] = field(default_factory=list)
    """Milliseconds from `sent_s` until each part of a stream arrived."""
    num_chars: list[int] = field(default_factory=list)
    """Number of characters of each part."""
    usage: list[int] = field(default_factory=list)
    """Prompt and completion tokens of the ended job; empty if the pool states none."""


def append(record: Record, file: Path) -> None:
    """Append a record to a file with one JSON object per line."""
    with file.open("ab") as opened:
        opened.write(orjson.dumps(asdict(record)) + b"\n")


def read_records(file: Path) -> list[Record]:
    """Return the records in a file, or none if it doesn't exist."""
    if not file.exists():
        return []
    rows = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    return [Record(**{**row, "outcome": Outcome(row["outcome"])}) for row in rows]
