"""Every error that Lorikeet raises on purpose, and its meaning for clients.

LorikeetError
├── SettingsError            a flag, variable or file is invalid: the process doesn't start
├── RedisUnavailable         Redis can't be reached or can't serve: HTTP 503
├── ProtocolMismatch         a message of another protocol version
├── LeaseLost                this worker was given up; its jobs run elsewhere
├── DuplicateJob             a job with this id exists
├── QueueFull                a limit of the queue is reached: HTTP 429
├── EngineBroken             the engine can't compute any more: the worker exits
│   └── EngineStalled        the engine finishes no step
├── ModelRejected            the base model can't be served exactly
├── AdapterRejected          the adapter can't be served exactly; names the tensor or field
│   └── StoreFailed          the adapter's files can't be copied to the worker's store: HTTP 503
├── GrammarRejected          the schema of an answer can't be enforced
└── JobFailed                ends one job with a `JobError`, which has an HTTP status
"""

from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Machine-readable reasons in answers to clients, as OpenAI's `error.code`."""

    INVALID_VALUE = "invalid_value"
    """A field has a value that isn't allowed."""
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    """A field of OpenAI's API isn't supported here."""
    UNKNOWN_PARAMETER = "unknown_parameter"
    """A field doesn't exist."""
    INVALID_API_KEY = "invalid_api_key"
    """The request has no API key, or an unknown one."""
    PERMISSION_DENIED = "permission_denied"
    """The API key doesn't permit this request."""
    MODEL_NOT_FOUND = "model_not_found"
    """No base model or adapter has this name."""
    ADAPTER_EXISTS = "adapter_exists"
    """An adapter with this name is loaded, and the request doesn't replace it."""
    ADAPTER_CONFLICT = "adapter_conflict"
    """The adapter's state doesn't allow this request."""
    ADAPTER_REJECTED = "adapter_rejected"
    """The adapter's files can't be served exactly as PEFT would."""
    SOURCE_NOT_FOUND = "source_not_found"
    """The adapter's folder doesn't exist, or the hub doesn't provide its repository."""
    SOURCE_NOT_ALLOWED = "source_not_allowed"
    """The adapter's source isn't one of those that clients may load."""
    JOB_NOT_FOUND = "job_not_found"
    """No job has this id, or it is no longer kept."""
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    """The prompt, or prompt and answer together, are longer than the model's context."""
    UNKNOWN_URL = "unknown_url"
    """The URL doesn't exist."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The URL doesn't support this HTTP method."""
    REQUEST_TOO_LARGE = "request_too_large"
    """The request body exceeds the limit in bytes."""
    HEADERS_TOO_LARGE = "headers_too_large"
    """The request line and headers exceed the limit in bytes."""
    REQUEST_TIMEOUT = "request_timeout"
    """The request didn't arrive completely within its time limit."""
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """The front end has reached its limit of connections; try again later."""
    QUEUE_FULL = "queue_full"
    """A limit on waiting jobs is reached; try again later."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """The job didn't finish within its deadline."""
    CANCELLED = "cancelled"
    """The job was cancelled."""
    ADAPTER_UNAVAILABLE = "adapter_unavailable"
    """The adapter is registered, but no worker can load it."""
    POISON_JOB = "poison_job"
    """The job killed its worker repeatedly, and isn't tried again."""
    RESUME_DIVERGED = "resume_diverged"
    """Another worker continued the answer, and contradicted what was already sent."""
    UNAVAILABLE = "service_unavailable"
    """Redis, or every worker, is unavailable."""
    INTERNAL = "internal_error"
    """An internal error, logged with the job's id."""


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
    """Reason why a job or request ended without an answer, as clients receive it."""

    code: ErrorCode
    message: str
    param: str | None = None
    """Name of the request's field that is at fault."""

    @property
    def status(self) -> int:
        """HTTP status of the code."""
        return HTTP_STATUS[self.code]


class LorikeetError(Exception):
    """Base class of every error that is raised on purpose."""


class SettingsError(LorikeetError):
    """A setting is missing, unknown or invalid."""


class RedisUnavailable(LorikeetError):
    """Redis can't be reached, can't serve, or has a configuration that would lose jobs.

    The call that raises it may have been executed.
    """


class ProtocolMismatch(LorikeetError):
    """A message was written with another protocol version."""


class LeaseLost(LorikeetError):
    """The worker's lease has ended, and its jobs run elsewhere."""


class DuplicateJob(LorikeetError):
    """A job with this id exists."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id} exists already, in state {state}")
        self.state = state


class ReachedLimit(StrEnum):
    """Limit of the queue that a job would exceed."""

    POOL = "pool"
    """Waiting jobs of the pool."""
    ADAPTER = "adapter"
    """Waiting jobs of one adapter version."""
    TENANT = "tenant"
    """Waiting jobs of one tenant."""
    MEMORY = "memory"
    """Redis' memory."""
    POOL_BYTES = "bytes of the pool"
    """Bytes of the pool's unfinished requests."""
    TENANT_BYTES = "bytes of the tenant"
    """Bytes of one tenant's unfinished requests."""


class QueueFull(LorikeetError):
    """The queue doesn't accept a job because a limit is reached."""

    def __init__(self, limit: ReachedLimit, num_waiting: int) -> None:
        super().__init__(f"the queue is full ({limit}: {num_waiting} waiting)")
        self.limit = limit
        self.num_waiting = num_waiting


class EngineBroken(LorikeetError):
    """The engine can't compute any more, such as after a device error."""


class EngineStalled(EngineBroken):
    """The engine finishes no step and can't be interrupted, so the process has to exit."""


class ModelRejected(LorikeetError):
    """The base model can't be loaded, or can't be served exactly."""


class AdapterRejected(LorikeetError):
    """The adapter can't be served exactly as PEFT would."""


class StoreFailed(AdapterRejected):
    """The worker's store can't hold an adapter's files, such as on a full disk."""


class GrammarRejected(LorikeetError):
    """The schema of an answer can't be enforced. The message names the part at fault."""


class JobFailed(LorikeetError):
    """Ends one job, or one request before it becomes a job."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error
