"""Errors in OpenAI's shape."""

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What went wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    """The field of the request that is at fault."""
    code: str | None


class ErrorBody(BaseModel):
    """The body of every response with a status from 400 on."""

    error: ErrorDetail
