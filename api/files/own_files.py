"""Finds and describes files on behalf of their tenants."""

from typing import Any

from api.files.file_store import FileStore
from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.access.rights import Access
from shared.protocol.ids import FileId
from shared.store.batches.files import StoredFiles
from shared.store.batches.records import StoredFile

FOLDER = "files"
"""Folder in the file store with the contents of files."""


def content_name(file_id: FileId) -> str:
    """Return the name of a file's content in the file store."""
    return f"{FOLDER}/{file_id}"


class TenantFiles:
    """Files of the tenants of one pool."""

    def __init__(self, records: StoredFiles, store: FileStore | None) -> None:
        """Create an object. `store` holds the files' contents; None without --file-store."""
        self.records = records
        self._store = store

    def store(self) -> FileStore:
        """Return the server's file store.

        Raises:
            JobFailed: the server has none.
        """
        if self._store is None:
            message = "this server keeps no files; ask the operator to set --file-store"
            raise failed(ErrorCode.NO_FILE_STORE, message)
        return self._store

    async def own(self, access: Access, file_id: str, *, param: str | None = None) -> StoredFile:
        """Return a file that the client may see. `param` is the request field that names the file.

        Raises:
            JobFailed: there is no such file, it belongs to another tenant, the client's key doesn't
                allow all its models, or the server keeps no files.
        """
        self.store()
        file = await self.records.get(FileId(file_id))
        if file is None or file.tenant != access.tenant or not access.covers(file.models):
            raise file_not_found(file_id, param=param)
        return file


async def remove_file(store: FileStore, files: StoredFiles, file_id: FileId) -> None:
    """Delete a file with its content, or the remains of a failed upload. Safe to repeat.

    Clients stop seeing the file at once. If the content can't be deleted now, the tenant stays
    charged for it until a control process has deleted it.

    Raises:
        JobFailed: the file store can't be used.
    """
    await files.delete(file_id)
    await store.delete(content_name(file_id))
    await files.forget(file_id)


def file_not_found(file_id: str, *, param: str | None = None) -> JobFailed:
    """Return the error for a file id that doesn't belong to the tenant."""
    message = f"the file {file_id[:100]!r} doesn't exist or has expired"
    return failed(ErrorCode.FILE_NOT_FOUND, message, param)


def file_body(file: StoredFile) -> dict[str, Any]:
    """Return the body that describes a file."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": file.created_s,
        "expires_at": file.expires_s,
        "filename": file.name,
        "purpose": file.purpose.value,
        "status": "processed",
    }
