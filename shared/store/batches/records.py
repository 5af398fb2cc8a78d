"""Types of the records that Redis keeps of files and batches."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.protocol.access.rights import ALL_MODELS
from shared.protocol.ids import BatchId, FileId
from shared.protocol.results import Usage


class Purpose(StrEnum):
    """Purpose of a file."""

    BATCH = "batch"
    """Requests of a batch, one JSON object per line."""
    BATCH_OUTPUT = "batch_output"
    """Answers or errors of a batch, one JSON object per line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file in the pool's file store."""

    id: FileId
    tenant: str
    name: str
    """Name that the client gave."""
    purpose: Purpose
    num_bytes: int
    created_s: int
    """Unix time in seconds at which the file was created."""
    expires_s: int
    """Unix time in seconds at which the file is deleted."""
    models: tuple[str, ...] = (ALL_MODELS,)
    """Patterns of the models that the API key of the file's creator allows. A client needs rights
    to the same models to see the file."""


class BatchStatus(StrEnum):
    """Status of a batch, as in OpenAI's API."""

    VALIDATING = "validating"
    """The input file isn't checked yet."""
    FAILED = "failed"
    """The input file is invalid, or several turns of the batch failed. `errors` has the reason."""
    IN_PROGRESS = "in_progress"
    """The requests are being computed."""
    FINALIZING = "finalizing"
    """All requests have ended, and the output files are being written."""
    COMPLETED = "completed"
    EXPIRED = "expired"
    """The completion window ended before all requests of the batch had ended."""
    CANCELLING = "cancelling"
    """The batch starts no more requests. It ends once its running requests have ended."""
    CANCELLED = "cancelled"


OPEN = frozenset(
    {
        BatchStatus.VALIDATING,
        BatchStatus.IN_PROGRESS,
        BatchStatus.FINALIZING,
        BatchStatus.CANCELLING,
    }
)
"""Statuses of batches that haven't ended."""
_NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineError:
    """A fault of a batch's input file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    """Number of the faulty line, from 1; None if the fault isn't in a single line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of requests."""

    id: BatchId
    tenant: str
    endpoint: str
    """Path of the requests, such as /v1/chat/completions."""
    input_file: FileId
    window: str
    """The client's `completion_window`, such as 24h."""
    created_s: int
    expires_s: int
    """Unix time in seconds at which unfinished requests of the batch expire."""
    models: tuple[str, ...] = (ALL_MODELS,)
    """Patterns of the names of models that the requests may use."""
    key_id: str = ""
    """Id of the stored API key. Its limits apply to the requests. Empty if no key is stored."""
    books_pool: str = ""
    """Name of the pool that has the API key and the ledger. Empty if it is the batch's own pool."""
    weight: float = 1.0
    """Weight of the tenant. Tenants get turns in proportion to their weights."""
    metadata: dict[str, Any] | None = None
    status: BatchStatus = BatchStatus.VALIDATING
    times: dict[BatchStatus, int] = field(default_factory=dict)
    """Unix time in seconds of the start of each status that the batch has had."""
    num_requests: int = 0
    num_completed: int = 0
    num_failed: int = 0
    usage: Usage = _NO_USAGE
    """Token counts of all answers so far."""
    output_file: FileId | None = None
    error_file: FileId | None = None
    errors: tuple[LineError, ...] = ()
    num_deaths: int = 0
    """Since the latest result, the number of unfinished turns: turns that crashed, and the running
    turn, if any."""
    num_failures: int = 0
    """Number of turns that have failed since the latest result."""
    failure: str = ""
    """Reason why the most recent of the turns in `num_failures` failed; empty if none did."""
