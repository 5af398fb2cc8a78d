"""Receives a file as a multipart form, and streams it into the file store."""

import re
import time
from collections.abc import AsyncIterator

from fastapi import Request

from api.files.form import MAX_FIELDS_BYTES, FileForm
from api.files.own_files import TenantFiles, content_name, remove_file
from api.http.body import declared_size
from api.http.turns.fair_slots import FairSlots
from shared.errors import ErrorCode, JobFailed, RedisUnavailable, failed, invalid_param
from shared.protocol.access.rights import Access
from shared.protocol.ids import FileId
from shared.settings import ApiSettings
from shared.store.batches.files import MIB, FileQuota, new_file_id
from shared.store.batches.records import Purpose, StoredFile

DAY_S = 86_400
MAX_UPLOADS = 16
"""Maximum number of files that a process receives at the same time. Each needs up to 3 MiB of
memory."""
MAX_UPLOADS_TENANT = 4
"""Maximum number of files that a process receives from one tenant at the same time."""
MARGIN_S = 600
"""An unfinished upload is given up this many seconds after the time limit of its request's body."""
MAX_NAME_CHARS = 255
PURPOSES = ("batch",)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class FileUploads:
    """Receives files for one pool."""

    def __init__(self, files: TenantFiles, slots: FairSlots, settings: ApiSettings) -> None:
        """Create a receiver. `slots` limits the number of files that are received at a time."""
        self._files = files
        self._slots = slots
        self._settings = settings
        self._quota = FileQuota(settings.max_files_tenant, settings.max_files_tenant_mb * MIB)

    async def receive(self, request: Request, access: Access) -> StoredFile:
        """Receive the field `file` of a form, and store it.

        Bytes are charged to the tenant before they are written. A failed upload is deleted.

        Raises:
            JobFailed: the body isn't a form with a file and a known purpose, is too large, or
                exceeds the tenant's quota; or the file store can't be used.
        """
        async with self._slots.slot(access.tenant):
            file_id = new_file_id()
            try:
                return await self._receive(request, access, file_id)
            except BaseException:
                await self._give_up(file_id)
                raise

    async def _receive(self, request: Request, access: Access, file_id: FileId) -> StoredFile:
        settings, now = self._settings, time.time()
        form = FileForm(request.headers.get("content-type", ""))
        until_s = now + settings.body_timeout_s + MARGIN_S

        async def reserve(num_bytes: int) -> None:
            await self._files.records.reserve(
                file_id, access.tenant, num_bytes, quota=self._quota, until_s=until_s
            )

        async def charged() -> AsyncIterator[bytes]:
            """Yield the file's content in pieces. Each piece is charged to the tenant first."""
            size = 0
            async for piece in form.content(_limited(request, settings.max_file_mb)):
                size += len(piece)
                await reserve(size)
                yield piece
            _check(form, size)

        await reserve(max(0, _declared(request, settings.max_file_mb) - MAX_FIELDS_BYTES))
        num_bytes = await self._files.store().write(content_name(file_id), charged())
        file = StoredFile(
            id=file_id,
            tenant=access.tenant,
            models=access.models,
            name=_name_of(form),
            purpose=Purpose.BATCH,
            num_bytes=num_bytes,
            created_s=int(now),
            expires_s=int(now) + settings.file_days * DAY_S,
        )
        await self._files.records.complete(file)
        return file

    async def _give_up(self, file_id: FileId) -> None:
        """Delete the remains of an upload. If that fails, a control process deletes them later."""
        try:
            await remove_file(self._files.store(), self._files.records, file_id)
        except (RedisUnavailable, JobFailed):
            return


def _declared(request: Request, max_mb: int) -> int:
    """Return the size in bytes that the client states for the form, or 0 if it states none."""
    declared = declared_size(request)
    if declared > max_mb * MIB + MAX_FIELDS_BYTES:
        raise _too_large(max_mb)
    return declared


async def _limited(request: Request, max_mb: int) -> AsyncIterator[bytes]:
    """Yield the body of a request, and refuse a file of more than `max_mb` MiB."""
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
    return failed(ErrorCode.REQUEST_TOO_LARGE, message, "file")
