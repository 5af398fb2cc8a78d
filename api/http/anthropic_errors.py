"""Errors in Anthropic's format. Pure."""

from typing import Any

from shared.errors import ErrorCode, JobError

PATH = "/v1/messages"
"""Start of the paths whose errors have Anthropic's format."""
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

_NO_THREADS = {"error_code": "thread_unsupported_request"}
"""Details by which Anthropic's clients know to repeat a request with all messages and no thread."""


def error_body(error: JobError) -> dict[str, Any]:
    """Return an error in Anthropic's format, with the fields `code` and `param` added."""
    fallback = "api_error" if error.status >= 500 else "invalid_request_error"
    body: dict[str, Any] = {
        "type": _TYPES.get(error.status, fallback),
        "message": error.message,
        "code": error.code,
        "param": error.param,
    }
    if (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, "thread"):
        body["details"] = _NO_THREADS
    return {"type": "error", "error": body}
