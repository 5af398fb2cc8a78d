"""Deletes objects from the file store that are no longer needed.

- Files that were deleted or have expired, and uploads whose process has died.
- Parts of batches that have ended.
- Leftovers: files that the pool doesn't know, because Redis has lost its data, and objects that a
  process was writing when it died. The sweep finds leftovers by their age.
"""

import structlog

from api.files.file_store import FileStore
from api.files.own_files import FOLDER, remove_file
from ops.control.batches.results import WORK, Results
from shared.errors import JobFailed
from shared.protocol.ids import FileId
from shared.store.batches.batches import Batches
from shared.store.batches.files import StoredFiles

PAGE = 100
RETRY_S = 600
"""Seconds until a failed deletion of an object is tried again."""
PARTIAL_S = 3600
"""Seconds without a write after which the writer of an object must have died."""
LEFTOVERS_EVERY_S = 3600
MAX_RUN_S = 8 * 86_400
"""Seconds after which a batch has certainly ended. Its completion window is at most seven days."""

log = structlog.get_logger()


class FileSweep:
    """Deletes unused objects from the file store of one pool. Every method may be repeated."""

    def __init__(
        self, store: FileStore, files: StoredFiles, batches: Batches, *, keep_s: int
    ) -> None:
        """Create a sweep. All pools that use the store keep their files for `keep_s` seconds."""
        self._store = store
        self._files = files
        self._batches = batches
        self._keep_s = keep_s
        self._searched_s = 0.0

    async def run(self, now_s: float) -> None:
        """Delete everything that is due at `now_s`, and search for leftovers once an hour."""
        await self.delete_files(now_s)
        await self.delete_parts(now_s)
        if now_s - self._searched_s >= LEFTOVERS_EVERY_S:
            self._searched_s = now_s
            await self.delete_leftovers(now_s)

    async def delete_files(self, now_s: float) -> None:
        """Remove files that were deleted or have expired. Failed removals are tried again later."""
        while due := await self._files.due(now_s, limit=PAGE):
            for file_id in due:
                try:
                    await remove_file(self._store, self._files, file_id)
                except JobFailed as error:
                    log.warning("file_not_deleted", file_id=file_id, error=str(error))
                    await self._files.delay(file_id, now_s + RETRY_S)

    async def delete_parts(self, now_s: float) -> None:
        """Delete the parts of batches that have ended."""
        while due := await self._batches.with_parts(now_s, limit=PAGE):
            for batch_id in due:
                try:
                    await Results(self._store, batch_id).clear()
                    await self._batches.forget_parts(batch_id)
                except JobFailed as error:
                    log.warning("parts_not_deleted", batch_id=batch_id, error=str(error))
                    await self._batches.delay_parts(batch_id, now_s + RETRY_S)

    async def delete_leftovers(self, now_s: float) -> None:
        """Delete objects that no process is writing, and of which the pool has no record."""
        old_s = now_s - self._keep_s - MAX_RUN_S
        names = [
            each.name
            for folder in (FOLDER, WORK)
            for each in await self._store.objects(folder)
            if each.written_s < (now_s - PARTIAL_S if each.is_partial else old_s)
        ]
        for start in range(0, len(names), PAGE):
            await self._delete_unknown(names[start : start + PAGE])

    async def _delete_unknown(self, names: list[str]) -> None:
        ids = {FileId(name.removeprefix(f"{FOLDER}/")): name for name in names}
        for each in await self._files.unknown(list(ids)):
            try:
                await self._store.delete(ids[each])
                log.warning("leftover_deleted", name=ids[each])
            except JobFailed as error:
                log.warning("leftover_not_deleted", name=ids[each], error=str(error))
