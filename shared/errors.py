"""Every error that Lorikeet raises on purpose, and what each means to a client.

LorikeetError
├── SettingsError            a flag, variable or file is wrong: the process doesn't start
├── RedisUnavailable         Redis can't be reached or refuses to serve: HTTP 503
├── ProtocolMismatch         a message written by another protocol version
├── LeaseLost                this worker was given up; its jobs run elsewhere
├── DuplicateJob             a job of this id exists
├── QueueFull                a waiting limit is reached: HTTP 429
├── EngineBroken             a worker can't compute any more: it ends, its jobs run elsewhere
│   └── EngineStalled        its engine finishes no step
├── ModelRejected            the base model can't be served exactly
├── AdapterRejected          the adapter can't be served exactly; names the tensor or field
│   └── StoreFailed          its files can't be copied to the worker's store: HTTP 503
├── GrammarRejected          a schema that an answer must follow can't be enforced
└── JobFailed                ends one job with a `JobError`, which names its HTTP status
"""

from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Machine-readable reasons that reach clients, in OpenAI's `error.code`."""

    INVALID_VALUE = "invalid_value"
    """A field has a value outside of what is allowed."""
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    """A field is known to OpenAI's API, but isn't served."""
    UNKNOWN_PARAMETER = "unknown_parameter"
    """No such field exists."""
    INVALID_API_KEY = "invalid_api_key"
    """No API key was sent, or one that isn't known."""
    PERMISSION_DENIED = "permission_denied"
    """The API key is good, but not for this."""
    MODEL_NOT_FOUND = "model_not_found"
    """No base model or adapter has this name."""
    ADAPTER_EXISTS = "adapter_exists"
    """An adapter of this name is loaded, and wasn't to be replaced."""
    ADAPTER_CONFLICT = "adapter_conflict"
    """The adapter isn't in a state for this."""
    ADAPTER_REJECTED = "adapter_rejected"
    """The adapter's files can't be served exactly as PEFT would."""
    SOURCE_NOT_FOUND = "source_not_found"
    """There is no such folder of an adapter, or the hub doesn't give it."""
    SOURCE_NOT_ALLOWED = "source_not_allowed"
    """The adapter lies outside of what may be loaded at run time."""
    JOB_NOT_FOUND = "job_not_found"
    """No job has this id, or it has expired."""
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    """The prompt, or prompt and answer, don't fit into the model's context."""
    UNKNOWN_URL = "unknown_url"
    """Nothing is served there."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The URL takes other methods."""
    REQUEST_TOO_LARGE = "request_too_large"
    """The request body is over the byte limit."""
    HEADERS_TOO_LARGE = "headers_too_large"
    """The request line and headers are over the byte limit."""
    REQUEST_TIMEOUT = "request_timeout"
    """The request didn't arrive in full within its time."""
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """The front end has as many connections as it may have; try again later."""
    QUEUE_FULL = "queue_full"
    """A limit on waiting jobs is reached; try again later."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """The job wasn't finished within its deadline."""
    CANCELLED = "cancelled"
    """The job was cancelled."""
    ADAPTER_UNAVAILABLE = "adapter_unavailable"
    """The adapter is registered, but no worker can load it."""
    POISON_JOB = "poison_job"
    """The job killed its worker repeatedly and won't be tried again."""
    RESUME_DIVERGED = "resume_diverged"
    """A moved stream contradicted what was already shown."""
    UNAVAILABLE = "service_unavailable"
    """Redis, or every worker, is out of reach."""
    INTERNAL = "internal_error"
    """A fault of ours; the log has the job id."""


HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID_VALUE: 400,
    ErrorCode.UNSUPPORTED_PARAMETER: 400,
    ErrorCode.UNKNOWN_PARAMETER: 400,
    ErrorCode.INVALID_API_KEY: 401,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.MODEL_NOT_FOUND: 404,
    ErrorCode.ADAPTER_EXISTS: 409,
    ErrorCode.ADAPTER_CONFLICT: 409,
    ErrorCode.ADAPTER_REJECTED: 400,
    ErrorCode.SOURCE_NOT_FOUND: 404,
    ErrorCode.SOURCE_NOT_ALLOWED: 403,
    ErrorCode.JOB_NOT_FOUND: 404,
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: 400,
    ErrorCode.UNKNOWN_URL: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.REQUEST_TOO_LARGE: 413,
    ErrorCode.HEADERS_TOO_LARGE: 431,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.TOO_MANY_CONNECTIONS: 503,
    ErrorCode.QUEUE_FULL: 429,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.CANCELLED: 409,
    ErrorCode.ADAPTER_UNAVAILABLE: 503,
    ErrorCode.POISON_JOB: 500,
    ErrorCode.RESUME_DIVERGED: 500,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job or request ended without an answer, as clients are told."""

    code: ErrorCode
    message: str
    param: str | None = None

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return HTTP_STATUS[self.code]


class LorikeetError(Exception):
    """Base of every error raised on purpose."""


class SettingsError(LorikeetError):
    """A setting is missing, unknown or out of range."""


class RedisUnavailable(LorikeetError):
    """Redis can't be reached, or is set up in a way that would lose jobs."""


class ProtocolMismatch(LorikeetError):
    """A message comes from another protocol version."""


class LeaseLost(LorikeetError):
    """The worker's lease has ended: whatever it holds runs elsewhere."""


class DuplicateJob(LorikeetError):
    """A job of this id is already stored."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id} exists already, in state {state}")
        self.state = state


class QueueFull(LorikeetError):
    """A limit on waiting jobs is reached."""

    def __init__(self, which: str, waiting: int) -> None:
        super().__init__(f"the queue is full ({which}: {waiting} waiting)")
        self.which = which
        self.waiting = waiting


class EngineBroken(LorikeetError):
    """The engine can't compute any more, such as after an error of its device."""


class EngineStalled(EngineBroken):
    """The engine finishes no step, and can't be stopped: only the process' end helps."""


class ModelRejected(LorikeetError):
    """The base model can't be loaded, or can't be served exactly."""


class AdapterRejected(LorikeetError):
    """The adapter can't be served exactly as PEFT would."""


class StoreFailed(AdapterRejected):
    """The worker's store can't take an adapter's files, such as on a full disk."""


class GrammarRejected(LorikeetError):
    """What an answer must follow can't be enforced; says which part of it."""


class JobFailed(LorikeetError):
    """Ends one job, or one request before it became a job."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error
