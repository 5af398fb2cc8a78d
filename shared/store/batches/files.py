"""Records of the files that clients have uploaded. Their contents are in the file store."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from shared.store.batches.pages import Page, read_page
from shared.store.batches.records import FileId, Purpose, StoredFile
from shared.store.connection import Redis
from shared.store.keys import Keys


def new_file_id() -> FileId:
    """Return an id that no file has."""
    return FileId(f"file-{secrets.token_hex(16)}")


class StoredFiles:
    """Records of the files of one pool."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def add(self, *files: StoredFile) -> None:
        """Record files whose contents are in the file store. May be repeated."""
        pipe = self._redis.pipeline(transaction=True)
        for file in files:
            record, of_tenant = self._keys.file(file.id), self._keys.files_of(file.tenant)
            pipe.hset(record, mapping=_to_hash(file))
            pipe.expireat(record, file.expires_s)
            pipe.zadd(self._keys.files, {file.id: file.expires_s * 1000})
            pipe.zadd(of_tenant, {file.id: file.created_s * 1000})
            lifetime_s = file.expires_s - file.created_s
            pipe.zremrangebyscore(of_tenant, "-inf", (file.created_s - lifetime_s) * 1000)
            pipe.expireat(of_tenant, file.expires_s)
        await pipe.execute()

    async def get(self, file_id: FileId) -> StoredFile | None:
        """Return a file, or None if it doesn't exist or has expired."""
        (found,) = await self._read([file_id])
        return found

    async def page(
        self, tenant: str, *, limit: int, after: str | None, purpose: Purpose | None
    ) -> Page[StoredFile] | None:
        """Return a page of the tenant's files, newest first; None if `after` isn't one of them."""
        return await read_page(
            self._redis,
            self._keys.files_of(tenant),
            self._read,
            limit=limit,
            after=after,
            is_wanted=lambda file: purpose in (None, file.purpose),
        )

    async def delete(self, file: StoredFile) -> None:
        """Delete a file's record. `due` then returns the file."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.delete(self._keys.file(file.id))
        pipe.zrem(self._keys.files_of(file.tenant), file.id)
        pipe.zadd(self._keys.files, {file.id: 0}, xx=True)
        await pipe.execute()

    async def due(self, now_s: float, *, limit: int) -> list[FileId]:
        """Return files whose contents must be deleted from the file store."""
        raw = await self._redis.zrangebyscore(
            self._keys.files, "-inf", now_s * 1000, start=0, num=limit
        )
        return [FileId(each.decode()) for each in raw]

    async def forget(self, file_id: FileId) -> None:
        """Note that the content of a file was deleted."""
        await self._redis.zrem(self._keys.files, file_id)

    async def _read(self, ids: Sequence[str]) -> list[StoredFile | None]:
        pipe = self._redis.pipeline(transaction=False)
        for each in ids:
            pipe.hgetall(self._keys.file(FileId(each)))
        return [
            _of_hash(FileId(each), fields) if fields else None
            for each, fields in zip(ids, await pipe.execute(), strict=True)
        ]


def _to_hash(file: StoredFile) -> dict[str, Any]:
    return {
        "tenant": file.tenant,
        "name": file.name,
        "purpose": file.purpose.value,
        "bytes": file.num_bytes,
        "created_s": file.created_s,
        "expires_s": file.expires_s,
    }


def _of_hash(file_id: FileId, raw: Mapping[bytes, bytes]) -> StoredFile:
    fields = {name.decode(): value.decode() for name, value in raw.items()}
    return StoredFile(
        id=file_id,
        tenant=fields["tenant"],
        name=fields["name"],
        purpose=Purpose(fields["purpose"]),
        num_bytes=int(fields["bytes"]),
        created_s=int(fields["created_s"]),
        expires_s=int(fields["expires_s"]),
    )
