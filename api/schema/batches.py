"""Bodies of /v1/batches."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from api.schema.base import Body, StrictBody
from api.schema.metadata import METADATA_LIMITS, Metadata

MAX_WINDOW_H = 7 * 24
MAX_WINDOW_CHARS = 4
MAX_ID_CHARS = 100
"""Maximum number of characters of a file's id. Valid ids are shorter."""
_WINDOW = re.compile(r"([1-9][0-9]{0,2})([hd])")


class CreateBatchRequest(StrictBody):
    """Body of POST /v1/batches."""

    input_file_id: str = Field(min_length=1, max_length=MAX_ID_CHARS)
    """File with one request per line."""
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"]
    completion_window: str = Field(
        max_length=MAX_WINDOW_CHARS,
        description="Time after which requests that haven't ended expire: 24h, or another number "
        f"of hours or days such as 2h or 3d, at most {MAX_WINDOW_H // 24}d.",
    )
    metadata: Metadata | None = Field(None, description=f"The batch repeats it. {METADATA_LIMITS}")

    @field_validator("completion_window")
    @classmethod
    def _is_window(cls, value: str) -> str:
        if not 0 < window_h(value) <= MAX_WINDOW_H:
            raise ValueError(f"must be a time such as 24h, at most {MAX_WINDOW_H // 24}d")
        return value


def window_h(text: str) -> int:
    """Return the hours of a completion window, or 0 if `text` isn't one."""
    found = _WINDOW.fullmatch(text)
    return int(found[1]) * (24 if found[2] == "d" else 1) if found else 0


class DeletedBatch(Body):
    """A batch that was deleted."""

    id: str
    object: Literal["batch"] = "batch"
    deleted: bool


class BatchRequestCounts(Body):
    """How many requests a batch has, and how many of them completed or failed."""

    total: int
    completed: int
    failed: int


class BatchErrorBody(Body):
    """A fault of the input file."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(Body):
    """The first faults of the input file."""

    object: Literal["list"] = "list"
    data: list[BatchErrorBody]


class BatchBody(Body):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchRequestCounts
    usage: dict[str, Any] = Field(description="Tokens of all answers so far.")
    metadata: dict[str, str] | None


class BatchList(Body):
    """A page of batches, newest first."""

    object: Literal["list"] = "list"
    data: list[BatchBody]
    first_id: str | None
    last_id: str | None
    has_more: bool
