"""Every error that Lorikeet raises on purpose, and its meaning for clients.

LorikeetError
├── SettingsError            a flag, variable or file is invalid: the process doesn't start
├── UpstreamChanged          a package lacks a name that we use: the process doesn't start
├── RedisUnavailable         Redis can't be reached or can't serve: HTTP 503
├── ProtocolMismatch         a message has a protocol version that this process can't read
├── LeaseLost                this process was declared dead, and its jobs run elsewhere
├── DuplicateJob             a job with this id already exists
├── QueueFull                a limit of the queue is reached: HTTP 429
├── RateLimited              a limit of the request's API key is reached: HTTP 429
├── RegistryChanged          the registry has changed since the request was admitted
├── EngineBroken             the engine can no longer compute: the worker exits
│   └── EngineStalled        a step of the engine doesn't finish
├── ModelRejected            the base model can't be served exactly
├── AdapterRejected          the adapter can't be served exactly; the message says why
│   ├── AdapterNotServed     only workers with other settings serve the adapter
│   ├── StoreFailed          the adapter's files can't be copied to the worker's store: HTTP 503
│   └── SourceFailed         the adapter can't be fetched from its source; its code says why
├── GrammarRejected          the JSON schema of an answer can't be enforced
└── JobFailed                ends one job with a `JobError`, which has an HTTP status
"""

from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Machine-readable error codes, and the HTTP status of each.

    As in OpenAI's API, clients receive a code as `error.code`.
    """

    status: int
    """HTTP status of the error."""

    def __new__(cls, code: str, status: int = 500) -> "ErrorCode":
        """Create the member for a code, with its HTTP status."""
        member = str.__new__(cls, code)
        member._value_, member.status = code, status
        return member

    INVALID_VALUE = "invalid_value", 400
    """A field has a value that isn't allowed."""
    UNSUPPORTED_PARAMETER = "unsupported_parameter", 400
    """A field of OpenAI's API isn't supported by Lorikeet."""
    UNKNOWN_PARAMETER = "unknown_parameter", 400
    """The request has a field that doesn't exist."""
    INVALID_API_KEY = "invalid_api_key", 401
    """The request has no API key, or an unknown one."""
    PERMISSION_DENIED = "permission_denied", 403
    """The API key doesn't permit this request."""
    KEY_NOT_FOUND = "key_not_found", 404
    """No stored API key has this id."""
    KEY_CONFLICT = "key_conflict", 409
    """The change would leave no API key that can manage keys."""
    MODEL_NOT_FOUND = "model_not_found", 404
    """No base model or adapter has this name."""
    ADAPTER_EXISTS = "adapter_exists", 400
    """An adapter with this name is loaded, and the request doesn't ask to replace it."""
    ADAPTER_CONFLICT = "adapter_conflict", 409
    """The adapter's state doesn't allow this request."""
    ADAPTER_REJECTED = "adapter_rejected", 400
    """Lorikeet can't serve the adapter exactly as PEFT would."""
    SOURCE_NOT_FOUND = "source_not_found", 404
    """The adapter's folder doesn't exist, or the hub has no accessible repository with its id."""
    SOURCE_NOT_ALLOWED = "source_not_allowed", 403
    """Clients may not load adapters from this source."""
    JOB_NOT_FOUND = "job_not_found", 404
    """No job has this id, or the record of the job has expired."""
    JOB_CONFLICT = "job_conflict", 409
    """The job's state doesn't allow this request."""
    WORKER_NOT_FOUND = "worker_not_found", 404
    """No worker of the pool has this name or id."""
    WORKER_CONFLICT = "worker_conflict", 409
    """The worker can't be paused, or several workers have this name."""
    PREVIOUS_RESPONSE_NOT_FOUND = "previous_response_not_found", 400
    """The response that a request continues doesn't exist, isn't stored, or isn't completed."""
    IDEMPOTENCY_CONFLICT = "idempotency_conflict", 409
    """Another request with a different body has used the same idempotency key."""
    FILE_NOT_FOUND = "file_not_found", 404
    """No file has this id, or the file has expired."""
    BATCH_NOT_FOUND = "batch_not_found", 404
    """No batch has this id, or the record of the batch has expired."""
    BATCH_CONFLICT = "batch_conflict", 409
    """The batch's status doesn't allow this request."""
    BATCH_EXPIRED = "batch_expired", 408
    """The batch expired before this request had ended."""
    QUOTA_EXCEEDED = "quota_exceeded", 400
    """The tenant has reached a quota of objects that it may keep, and must delete some first."""
    NO_FILE_STORE = "no_file_store", 404
    """The server keeps no files, because its operator hasn't set --file-store."""
    FILE_STORE_UNAVAILABLE = "file_store_unavailable", 503
    """The file store can't be read or written at present."""
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded", 400
    """The prompt, or prompt and answer together, exceed the model's context length."""
    UNKNOWN_URL = "unknown_url", 404
    """The URL doesn't exist."""
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    """The URL doesn't support this HTTP method."""
    REQUEST_TOO_LARGE = "request_too_large", 413
    """The request body exceeds the limit in bytes."""
    UNSUPPORTED_ENCODING = "unsupported_content_encoding", 415
    """The request body has a Content-Encoding that isn't supported."""
    HEADERS_TOO_LARGE = "headers_too_large", 431
    """The request line and headers exceed the limit in bytes."""
    REQUEST_TIMEOUT = "request_timeout", 408
    """The request didn't arrive completely within its time limit."""
    TOO_MANY_CONNECTIONS = "too_many_connections", 503
    """The front end has reached its limit of connections; try again later."""
    QUEUE_FULL = "queue_full", 429
    """A limit on waiting jobs is reached; try again later."""
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded", 429
    """A limit of the API key is reached; try again later."""
    DEADLINE_EXCEEDED = "deadline_exceeded", 504
    """The job didn't finish within its deadline."""
    CANCELLED = "cancelled", 409
    """The job was cancelled."""
    ADAPTER_UNAVAILABLE = "adapter_unavailable", 503
    """The adapter is registered, but no worker can load it."""
    POISON_JOB = "poison_job", 500
    """The job repeatedly killed its worker and isn't retried."""
    RESUME_DIVERGED = "resume_diverged", 500
    """The worker that resumed the answer contradicted text that was already sent."""
    UNAVAILABLE = "service_unavailable", 503
    """Redis or all workers are unavailable."""
    SERVER_STOPPING = "server_stopping", 503
    """This front end is stopping. The job goes on, and other front ends serve its answer."""
    INTERNAL = "internal_error", 500
    """An unexpected error occurred. It is logged with the job's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Error that ended a job or request, as clients receive it."""

    code: ErrorCode
    message: str
    param: str | None = None
    """Name of the request field that caused the error."""

    @property
    def status(self) -> int:
        """HTTP status of the error code."""
        return self.code.status


class LorikeetError(Exception):
    """Base class of every error that is raised on purpose."""


class SettingsError(LorikeetError):
    """A setting is missing, unknown or invalid."""


class UpstreamChanged(LorikeetError):
    """The installed version of a package lacks a name that Lorikeet uses."""


class RedisUnavailable(LorikeetError):
    """Redis can't be reached, or might lose jobs. The failed command may have been executed."""


class ProtocolMismatch(LorikeetError):
    """A message has a protocol version that this process can't read."""


class LeaseLost(LorikeetError):
    """The lease of this process has expired. Its jobs or its batch run elsewhere."""


class DuplicateJob(LorikeetError):
    """A job with this id already exists."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id} exists already, in state {state}")
        self.state = state


class RegistryChanged(LorikeetError):
    """The registry has changed since the request was admitted. It must be admitted again."""


class ReachedLimit(StrEnum):
    """Limit that a new job or batch would exceed."""

    POOL = "pool"
    """Number of waiting jobs in the pool."""
    ADAPTER = "adapter"
    """Number of waiting jobs of one adapter version."""
    TENANT = "tenant"
    """Number of waiting jobs of one tenant."""
    MEMORY = "memory"
    """Memory that Redis uses."""
    POOL_BYTES = "bytes of the pool"
    """Bytes of the pool's unfinished requests."""
    TENANT_BYTES = "bytes of the tenant"
    """Bytes of one tenant's unfinished requests."""
    BATCHES = "batches"
    """Number of the pool's batches that haven't ended."""
    TENANT_BATCHES = "batches of the tenant"
    """Number of one tenant's batches that haven't ended."""


class QueueFull(LorikeetError):
    """The queue rejects a job because a limit is reached."""

    def __init__(self, limit: ReachedLimit, num_waiting: int, *, retry_after_s: int = 1) -> None:
        super().__init__(f"the queue is full ({limit}: {num_waiting} waiting)")
        self.limit = limit
        self.num_waiting = num_waiting
        self.retry_after_s = retry_after_s
        """Seconds until the pool has probably served a part of the waiting jobs."""


class RateLimited(LorikeetError):
    """A request exceeds a limit of its API key."""

    def __init__(self, message: str, *, retry_after_s: int | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds until the limit has room for the request; None if it never has."""


class EngineBroken(LorikeetError):
    """The engine can no longer compute, for example after a device error."""


class EngineStalled(EngineBroken):
    """A step of the engine doesn't finish and can't be interrupted, so the process must exit."""


class ModelRejected(LorikeetError):
    """The base model can't be loaded, or can't be served exactly."""


class AdapterRejected(LorikeetError):
    """Lorikeet can't serve the adapter exactly as PEFT would."""


class AdapterNotServed(AdapterRejected):
    """This worker doesn't serve the adapter, but a worker with other settings would."""


class StoreFailed(AdapterRejected):
    """The adapter's files can't be copied to the worker's store, for example on a full disk."""


class SourceFailed(AdapterRejected):
    """The adapter can't be fetched from its source."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        """Code that clients receive: not found, not allowed, or unavailable."""


class GrammarRejected(LorikeetError):
    """The JSON schema of an answer can't be enforced. The message names the unsupported part."""


class JobFailed(LorikeetError):
    """Ends one job, or one request before it becomes a job."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


def failed(code: ErrorCode, message: str, param: str | None = None) -> JobFailed:
    """Return the failure of a job or request. `param` is the field that caused it, if any."""
    return JobFailed(JobError(code=code, message=message, param=param))


def invalid_value(message: str, param: str | None = None) -> JobFailed:
    """Return the failure of a request whose field `param` has an invalid value."""
    return failed(ErrorCode.INVALID_VALUE, message, param)


def invalid_param(param: str, reason: str) -> JobFailed:
    """Return the failure of a request whose field `param` is invalid. `reason` says why.

    The message is the field's name followed by `reason`, such as "can't be empty".
    """
    return invalid_value(f"{param} {reason}", param)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
