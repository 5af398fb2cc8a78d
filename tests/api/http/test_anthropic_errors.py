"""Errors in Anthropic's format."""

from api.http.errors import anthropic_error_body as error_body
from shared.errors import ErrorCode, JobError


def test_a_refused_thread_makes_clients_continue_without_one() -> None:
    error = JobError(code=ErrorCode.UNSUPPORTED_PARAMETER, message="no", param="thread")
    assert error_body(error)["error"]["details"] == {"error_code": "thread_unsupported_request"}


def test_other_errors_have_no_details() -> None:
    for param in ("stop", None):
        error = JobError(code=ErrorCode.UNSUPPORTED_PARAMETER, message="no", param=param)
        assert error_body(error) == {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "no",
                "code": "unsupported_parameter",
                "param": param,
            },
        }
    invalid = JobError(code=ErrorCode.INVALID_VALUE, message="no", param="thread")
    assert "details" not in error_body(invalid)["error"]
