"""Bodies of /v1/files."""

from typing import Literal

from api.schema.base import Body


class FileBody(Body):
    """A stored file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"


class FileList(Body):
    """A page of files, newest first."""

    object: Literal["list"] = "list"
    data: list[FileBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(Body):
    """A file that was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool
