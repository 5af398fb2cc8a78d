"""Files of uploads in the worker's store while they are read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from shared.errors import AdapterRejected
from shared.protocol.ids import UploadId
from shared.protocol.uploads import CONFIG_FILE, CONFIG_KEY, WEIGHTS_FILE, upload_source
from shared.store.adapters.uploads import Uploads
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.adapters.disk_store import AdapterStore
from worker.adapters.source.upload_fetcher import UploadFetcher

UPLOAD = UploadId("1" * 32)
SOURCE = upload_source(UPLOAD)
WEIGHTS = {"a": torch.zeros(2)}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (save(WEIGHTS, {CONFIG_KEY: '{"r": 4}'}), None),
        (save(WEIGHTS), "under the key `adapter_config`"),
        (b"1234", "under the key `adapter_config`"),
        (None, "have expired"),
    ],
)
async def test_the_configuration_may_be_in_the_metadata(
    redis: Redis, keys: Keys, tmp_path: Path, body: bytes | None, reason: str | None
) -> None:
    uploads, store = Uploads(redis, keys), AdapterStore(tmp_path / "store", max_bytes=1 << 20)
    if body is not None:
        await uploads.append(UPLOAD, "0", body, tenant="red", num_left=0, ttl_ms=60_000)
    fetcher, folder = UploadFetcher(uploads, store), store.staging(UPLOAD)
    if reason:
        with pytest.raises(AdapterRejected, match=reason):
            async with fetcher.fetched(SOURCE):
                raise AssertionError("the block must not run")
    else:
        async with fetcher.fetched(SOURCE):
            assert (folder / WEIGHTS_FILE).read_bytes() == body
            assert (folder / CONFIG_FILE).read_text() == '{"r": 4}'
    assert not folder.exists()
