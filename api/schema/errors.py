"""Bodies of error responses."""

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """One error: a message for people, and codes for programs."""

    message: str
    type: str
    param: str | None
    """Name of the request field that caused the error."""
    code: str | None


class ErrorBody(BaseModel):
    """Body of every response with a status of 400 or above."""

    error: ErrorDetail
