"""Receives a file as a multipart form, and streams it into the file store."""

import re
import time
from collections.abc import AsyncIterator

from fastapi import Request

from api.files.form import MAX_FIELDS_BYTES, FileForm
from api.files.own_files import content_name, file_store, remove_file
from api.pools.context import Context
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable, invalid_param
from shared.protocol.access.rights import Access
from shared.store.batches.files import MIB, FileQuota, new_file_id
from shared.store.batches.records import FileId, Purpose, StoredFile

DAY_S = 86_400
MAX_UPLOADS = 16
"""Number of files that a process receives at the same time. Each needs up to 3 MiB of memory."""
MAX_UPLOADS_TENANT = 4
"""Number of files that a process receives from one tenant at the same time."""
MARGIN_S = 600
"""Seconds for which an upload may last beyond the time limit of a request's body."""
MAX_NAME_CHARS = 255
PURPOSES = ("batch",)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


async def receive_file(request: Request, context: Context, access: Access) -> StoredFile:
    """Receive the field `file` of a form, and store it.

    The tenant is charged before its bytes are written. An upload that fails leaves nothing.

    Raises:
        JobFailed: the body isn't a form with a file and a known purpose, is too large, or exceeds
            the tenant's quota; or the file store can't be used.
    """
    async with context.upload_slots.slot(access.tenant):
        file_id = new_file_id()
        try:
            return await _receive(request, context, access, file_id)
        except BaseException:
            await _give_up(context, file_id)
            raise


async def _receive(
    request: Request, context: Context, access: Access, file_id: FileId
) -> StoredFile:
    settings, tenant, now = context.settings, access.tenant, time.time()
    form = FileForm(request.headers.get("content-type", ""))
    quota = FileQuota(settings.max_files_tenant, settings.max_files_tenant_mb * MIB)
    until_s = now + settings.body_timeout_s + MARGIN_S

    async def charged() -> AsyncIterator[bytes]:
        """Yield the file's content, each piece after it was charged to the tenant."""
        size = 0
        async for piece in form.content(_limited(request, settings.max_file_mb)):
            size += len(piece)
            await context.files.reserve(file_id, tenant, size, quota=quota, until_s=until_s)
            yield piece
        _check(form, size)

    declared = max(0, _declared(request, settings.max_file_mb) - MAX_FIELDS_BYTES)
    await context.files.reserve(file_id, tenant, declared, quota=quota, until_s=until_s)
    num_bytes = await file_store(context).write(content_name(file_id), charged())
    file = StoredFile(
        id=file_id,
        tenant=tenant,
        models=access.models,
        name=_name_of(form),
        purpose=Purpose.BATCH,
        num_bytes=num_bytes,
        created_s=int(now),
        expires_s=int(now) + settings.file_days * DAY_S,
    )
    await context.files.complete(file)
    return file


async def _give_up(context: Context, file_id: FileId) -> None:
    """Delete what an upload has left. If that fails, a control process does it later."""
    try:
        await remove_file(file_store(context), context.files, file_id)
    except (RedisUnavailable, JobFailed):
        return


def _declared(request: Request, max_mb: int) -> int:
    """Return how many bytes the form has; 0 if the client doesn't say it."""
    text = request.headers.get("content-length", "")
    declared = int(text) if text.isdecimal() else 0
    if declared > max_mb * MIB + MAX_FIELDS_BYTES:
        raise _too_large(max_mb)
    return declared


async def _limited(request: Request, max_mb: int) -> AsyncIterator[bytes]:
    """Yield the body of a request whose file may have `max_mb` MiB."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_mb * MIB + MAX_FIELDS_BYTES:
            raise _too_large(max_mb)
        yield chunk


def _check(form: FileForm, size: int) -> None:
    if form.file_name is None:
        raise invalid_param("file", "must be a file of the form")
    purpose = form.fields.get("purpose")
    if purpose not in PURPOSES:
        raise invalid_param(
            "purpose", f"must be {' or '.join(PURPOSES)}, not {str(purpose)[:60]!r}"
        )
    if not size:
        raise invalid_param("file", "is empty")


def _name_of(form: FileForm) -> str:
    """Return the name that the client gave a file, without folders and control characters."""
    name = _UNPRINTABLE.sub("", form.file_name or "").replace("\\", "/").rpartition("/")[2]
    return name[:MAX_NAME_CHARS] or "file"


def _too_large(max_mb: int) -> JobFailed:
    message = f"the file is larger than {max_mb} MiB; ask the operator to raise --max-file-mb"
    return JobFailed(JobError(code=ErrorCode.REQUEST_TOO_LARGE, message=message, param="file"))
