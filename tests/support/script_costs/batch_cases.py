"""Situations of the scripts that handle batches and files."""

import time

from job_cases import CALLS
from large_pool import LargePool

from shared.protocol.files import Purpose
from shared.protocol.ids import FileId
from shared.store.batches.batches import (
    MAX_LINES_PER_COMMIT,
    Batches,
    CommittedLines,
    new_batch_id,
)
from shared.store.batches.files import FileQuota, StoredFiles, new_file_id
from shared.store.batches.records import Batch, BatchStatus, BatchUsage, StoredFile

NUM_REQUESTS = 50_000
KEEP_S = 60


async def batches(pool: LargePool) -> None:
    """Measure batches from their acceptance to their end."""
    store = Batches(pool.meter, pool.keys)
    for number in range(CALLS):
        batch = _batch()
        with pool.meter.measuring("one batch"):
            await store.add(batch, keep_s=KEEP_S, max_tenant=2 * CALLS)
            turn = await store.take_turn()
            assert turn
            await store.begin(turn)
            await store.start(batch.id, turn.runner, num_requests=NUM_REQUESTS)
        with pool.meter.measuring(f"{MAX_LINES_PER_COMMIT} of {NUM_REQUESTS:,} requests"):
            await store.commit(batch.id, turn.runner, _lines(number))
        with pool.meter.measuring("one batch"):
            await store.release(turn)
            turn = await store.take_turn()
            assert turn
            completed = BatchStatus.COMPLETED
            await store.end(batch.id, turn.runner, completed, keep_s=KEEP_S, announces=False)
            await store.delete(batch)


async def files(pool: LargePool) -> None:
    """Measure files from their upload to their deletion."""
    store, quota = StoredFiles(pool.meter, pool.keys), FileQuota(max_files=99, max_bytes=99)
    for _ in range(CALLS):
        now = int(time.time())
        file = StoredFile(
            id=new_file_id(),
            tenant="batches",
            name="in.jsonl",
            purpose=Purpose.BATCH,
            num_bytes=9,
            created_s=now,
            expires_s=now + KEEP_S,
        )
        with pool.meter.measuring("one file"):
            await store.reserve(file.id, file.tenant, 9, quota=quota, until_s=now + KEEP_S)
            await store.complete(file)
            await store.delete(file.id)
            await store.forget(file.id)


def _batch() -> Batch:
    now = int(time.time())
    return Batch(
        id=new_batch_id(),
        tenant="batches",
        endpoint="/v1/completions",
        input_file=FileId("file-1"),
        window="24h",
        created_s=now,
        expires_s=now + KEEP_S,
    )


def _lines(number: int) -> CommittedLines:
    """Return lines that are spread over the whole batch."""
    stride = NUM_REQUESTS // MAX_LINES_PER_COMMIT
    return CommittedLines(
        parts=["1-answers", "1-failures"],
        lines=[(line, None) for line in range(number % stride, NUM_REQUESTS, stride)],
        num_completed=MAX_LINES_PER_COMMIT,
        num_failed=0,
        usage=BatchUsage(prompt_tokens=1, completion_tokens=1),
    )
