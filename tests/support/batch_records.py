"""Records of batches for tests of the store."""

import time
from typing import Any

from shared.protocol.ids import BatchId
from shared.protocol.results import Usage
from shared.store.batches.batches import Batches, CommittedLines, new_batch_id
from shared.store.batches.files import new_file_id
from shared.store.batches.records import Batch, FileId, Purpose, StoredFile


def make_batch(tenant: str = "red", *, age_s: int = 0, **changes: Any) -> Batch:
    now = int(time.time())
    fields: dict[str, Any] = {
        "id": new_batch_id(),
        "tenant": tenant,
        "endpoint": "/v1/completions",
        "input_file": FileId("file-1"),
        "window": "24h",
        "created_s": now - age_s,
        "expires_s": now + 86_400,
    }
    return Batch(**{**fields, **changes})


def make_file(*, keep_s: int = 1000, age_s: int = 0, **changes: Any) -> StoredFile:
    now = int(time.time()) - age_s
    fields: dict[str, Any] = {
        "id": new_file_id(),
        "tenant": "red",
        "name": "in",
        "purpose": Purpose.BATCH,
        "num_bytes": 10,
        "created_s": now,
        "expires_s": now + keep_s,
    }
    return StoredFile(**{**fields, **changes})


async def stored(batches: Batches, batch_id: BatchId) -> Batch:
    found = await batches.get(batch_id)
    assert found is not None
    return found


def lines(*numbers: int, **changes: Any) -> CommittedLines:
    """Return lines that have completed."""
    fields: dict[str, Any] = {
        "parts": ["p"],
        "lines": [(number, None) for number in numbers],
        "num_completed": len(numbers),
        "num_failed": 0,
        "usage": Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1),
    }
    return CommittedLines(**{**fields, **changes})
