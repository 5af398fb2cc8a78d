"""Records of clients' files. The contents of the files are in the file store.

A file has a record from the start of its upload until its content is deleted. All that time, the
file is charged to its tenant. An upload whose process dies is deleted like an expired file.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.access.rights import Access
from shared.protocol.ids import FileId
from shared.store.batches.pages import Page, read_page
from shared.store.batches.records import Purpose, StoredFile
from shared.store.redis.pool_store import PoolStore
from shared.store.redis.scripts import flat

MIB = 1 << 20
_FIELDS = ("name", "bytes", "created_s", "expires_s", "models")
"""Fields of a record that only a complete file has. The purpose is another such field."""


@dataclass(frozen=True, slots=True)
class FileQuota:
    """Limits of the files that one tenant keeps."""

    max_files: int
    max_bytes: int


def new_file_id() -> FileId:
    """Return a new random id."""
    return FileId(f"file-{secrets.token_hex(16)}")


class StoredFiles(PoolStore):
    """Records of the files of one pool."""

    async def reserve(
        self, file_id: FileId, tenant: str, num_bytes: int, *, quota: FileQuota, until_s: float
    ) -> None:
        """Charge the tenant for a file that is being uploaded.

        The call is repeated with a larger `num_bytes` as the file grows. `until_s` is the Unix time
        in seconds at which the upload is given up.

        Raises:
            JobFailed: the tenant would exceed a limit, or the upload was given up.
        """
        limits = quota.max_files, quota.max_bytes
        args = file_id, tenant, num_bytes, int(until_s * 1000), *limits
        outcome, *used = await self._scripts.run("reserve_file", *args)
        if outcome == b"gone":
            raise _given_up()
        if outcome != b"ok":
            raise _over_quota(outcome.decode(), int(used[0]), quota)

    async def add(self, *files: StoredFile) -> None:
        """Record files whose contents are stored. Quotas don't apply. The call may be repeated."""
        for file in files:
            await self._store(file, is_reserved=False)

    async def complete(self, file: StoredFile) -> None:
        """Record that a reserved file is complete. The call may be repeated.

        Raises:
            JobFailed: the upload was given up.
        """
        if not await self._store(file, is_reserved=True):
            raise _given_up()

    async def get(self, file_id: FileId) -> StoredFile | None:
        """Return a file, or None if it doesn't exist or has expired."""
        (found,) = await self._read([file_id])
        return found

    async def page(
        self, access: Access, *, limit: int, after: str | None, purpose: Purpose | None
    ) -> Page[StoredFile] | None:
        """Return a page of the files that a client may see; None if `after` isn't among them."""
        keys = self._keys
        tenant = access.tenant
        key = keys.files_with(purpose, tenant) if purpose else keys.files_of(tenant)
        return await read_page(
            self._redis, key, self._read, access=access, limit=limit, after=after
        )

    async def delete(self, file_id: FileId) -> None:
        """Delete a file, or give up its upload. `due` then returns the file."""
        await self._scripts.run("delete_file", file_id, *_FIELDS)

    async def due(self, now_s: float, *, limit: int) -> list[FileId]:
        """Return up to `limit` files whose content is to be deleted.

        These are files that clients deleted, expired files, and uploads that were given up.
        """
        raw = await self._redis.zrangebyscore(
            self._keys.files, "-inf", now_s * 1000, start=0, num=limit
        )
        return [FileId(each.decode()) for each in raw]

    async def delay(self, file_id: FileId, until_s: float) -> None:
        """Retry the failed deletion of a file's content at the Unix time `until_s`."""
        await self._redis.zadd(self._keys.files, {file_id: until_s * 1000}, xx=True)

    async def forget(self, file_id: FileId) -> None:
        """Record that the content of a deleted file is gone."""
        await self._scripts.run("forget_file", file_id)

    async def unknown(self, ids: Sequence[FileId]) -> list[FileId]:
        """Return the ids in `ids` that aren't files of the pool."""
        scores = await self._redis.zmscore(self._keys.files, list(ids)) if ids else []
        return [each for each, score in zip(ids, scores, strict=True) if score is None]

    async def _store(self, file: StoredFile, *, is_reserved: bool) -> bool:
        values = (
            *(file.name, file.num_bytes, file.created_s, file.expires_s),
            " ".join(file.models),
        )
        times_ms = file.created_s * 1000, file.expires_s * 1000
        reply = await self._scripts.run(
            "store_file",
            *(file.id, file.tenant, file.num_bytes, *times_ms, file.purpose.value),
            *(int(is_reserved), *flat(zip(_FIELDS, values, strict=True))),
        )
        return bool(reply)

    async def _read(self, ids: Sequence[str]) -> list[StoredFile | None]:
        pipe = self._redis.pipeline(transaction=False)
        for each in ids:
            pipe.hgetall(self._keys.file(FileId(each)))
        return [
            _of_hash(FileId(each), fields)
            for each, fields in zip(ids, await pipe.execute(), strict=True)
        ]


def _of_hash(file_id: FileId, raw: Mapping[bytes, bytes]) -> StoredFile | None:
    """Return a file from its Redis hash; None if it isn't complete, was deleted or has expired."""
    fields: dict[str, Any] = {name.decode(): value.decode() for name, value in raw.items()}
    if "purpose" not in fields or int(fields["expires_s"]) <= time.time():
        return None
    return StoredFile(
        id=file_id,
        tenant=fields["tenant"],
        name=fields["name"],
        purpose=Purpose(fields["purpose"]),
        num_bytes=int(fields["bytes"]),
        created_s=int(fields["created_s"]),
        expires_s=int(fields["expires_s"]),
        models=tuple(fields["models"].split()),
    )


def _over_quota(limit: str, used: int, quota: FileQuota) -> JobFailed:
    if limit == "files":  # the word of reserve_file.lua
        excess, setting = f"there are {used} files already", "--max-files-tenant"
    else:
        most, num = quota.max_bytes // MIB, used // MIB
        excess = f"with this file, all files would have more than {most} MiB; they have {num} MiB"
        setting = "--max-files-tenant-mb"
    message = f"{excess}; delete files with DELETE /v1/files/FILE_ID, or ask the operator to raise "
    return failed(ErrorCode.QUOTA_EXCEEDED, message + setting, "file")


def _given_up() -> JobFailed:
    message = "the upload took too long and was given up; try again"
    return failed(ErrorCode.FILE_STORE_UNAVAILABLE, message)
