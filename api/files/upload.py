"""Receives a file as a multipart form."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from shared.errors import ErrorCode, JobError, JobFailed, invalid_param, invalid_value

MIB = 1 << 20
MARGIN_BYTES = 64 << 10
"""Bytes of a form beside its file."""
MAX_FIELDS = 16
MAX_NAME_CHARS = 255
PURPOSES = ("batch",)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@asynccontextmanager
async def received_file(request: Request, *, max_mb: int) -> AsyncIterator[UploadFile]:
    """Receive the field `file` of a form. Its content is in a temporary file, not in memory.

    Raises:
        JobFailed: the body isn't a form with a file and a known purpose, or is too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise invalid_value(
            f"the content type must be multipart/form-data, not {kind[:60]!r}; send the form "
            "fields file and purpose"
        )
    parser = MultiPartParser(
        request.headers, _limited(request, max_mb), max_files=1, max_fields=MAX_FIELDS
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise invalid_value(f"the form can't be read: {error.message}") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise invalid_param("file", "must be a file of the form")
        _check_purpose(form.get("purpose"))
        if not file.size:
            raise invalid_param("file", "is empty")
        yield file
    finally:
        await form.close()


def name_of(file: UploadFile) -> str:
    """Return the name that the client gave a file, without folders and control characters."""
    name = _UNPRINTABLE.sub("", file.filename or "").replace("\\", "/").rpartition("/")[2]
    return name[:MAX_NAME_CHARS] or "file"


async def _limited(request: Request, max_mb: int) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request whose file may have `max_mb` MiB."""
    limit = max_mb * MIB + MARGIN_BYTES
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(max_mb)
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise _too_large(max_mb)
        yield piece


def _check_purpose(purpose: object) -> None:
    if purpose not in PURPOSES:
        raise invalid_param(
            "purpose", f"must be {' or '.join(PURPOSES)}, not {str(purpose)[:60]!r}"
        )


def _too_large(max_mb: int) -> JobFailed:
    message = f"the file is larger than {max_mb} MiB; ask the operator to raise --max-file-mb"
    return JobFailed(JobError(code=ErrorCode.REQUEST_TOO_LARGE, message=message, param="file"))
