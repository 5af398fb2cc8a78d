"""Errors in Anthropic's format. Pure."""

from typing import Any

from shared.errors import JobError

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


def error_body(error: JobError) -> dict[str, Any]:
    """Return an error in Anthropic's format, with the fields `code` and `param` added."""
    fallback = "api_error" if error.status >= 500 else "invalid_request_error"
    details = {"message": error.message, "code": error.code, "param": error.param}
    return {"type": "error", "error": {"type": _TYPES.get(error.status, fallback), **details}}
