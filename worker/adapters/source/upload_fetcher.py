"""Brings the files of uploaded adapters from Redis to the worker's store."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from shared.errors import AdapterRejected, StoreFailed
from shared.protocol.adapter_files import (
    CONFIG_FILE,
    CONFIG_KEY,
    WEIGHTS_FILE,
    is_prompt_file,
    upload_of,
)
from shared.protocol.ids import UploadId
from shared.store.adapters.uploads import UploadGone, Uploads
from worker.adapters.disk_store import AdapterStore
from worker.lora.checkpoint.safetensors_header import MAX_HEADER_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class UploadFetcher:
    """Fetches uploads, and keeps them while they are read."""

    uploads: Uploads
    store: AdapterStore | None
    """Store that gets the files; None if no files are fetched."""

    @asynccontextmanager
    async def fetched(self, source: str, *, digest: str | None = None) -> AsyncIterator[None]:
        """Keep the files of an upload in the store's staging folder during the block.

        The block may move the folder. Nothing happens if `source` isn't an upload, or if the store
        has a copy of the version with the digest `digest`.

        Raises:
            AdapterRejected: the upload isn't in Redis any more, or it has no configuration.
            StoreFailed: the files can't be written.
        """
        upload, store = upload_of(source), self.store
        if upload is None or store is None or (digest and self.has_copy(digest)):
            yield
            return
        folder = store.staging(upload)
        try:
            await self._fetch(upload, folder)
            yield
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def has_copy(self, digest: str) -> bool:
        """Return whether the store has a copy of the version with this digest."""
        return self.store is not None and self.store.folder_of(digest) is not None

    async def _fetch(self, upload: UploadId, folder: Path) -> None:
        try:
            await asyncio.to_thread(folder.mkdir)
            config = await self.uploads.config(upload)
            with (folder / WEIGHTS_FILE).open("wb") as file:
                async for piece in self.uploads.pieces(upload):
                    await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(_write_texts, folder, config)
        except UploadGone:
            raise AdapterRejected(
                "the files that were sent have expired; send them again"
            ) from None
        except OSError as error:
            raise StoreFailed(f"--adapter-store: can't write to {folder}: {error}") from None


def _write_texts(folder: Path, config: bytes | None) -> None:
    """Write adapter_config.json to `folder`, and also the prompt files that the metadata contains.

    The metadata is that of the weights file in `folder`. `config` is the text of
    adapter_config.json; None if the metadata contains this text.
    """
    metadata = _metadata(folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_bytes(_config_in(metadata) if config is None else config)
    for name, text in metadata.items():
        if is_prompt_file(name) and isinstance(text, str):
            (folder / name).write_bytes(text.encode())


def _config_in(metadata: Mapping[str, Any]) -> bytes:
    """Return the text of adapter_config.json in the metadata of a safetensors file."""
    config = metadata.get(CONFIG_KEY)
    if not isinstance(config, str):
        raise AdapterRejected(
            "adapter_config.json is missing: send its text as the query parameter `config`, or in "
            f"the metadata of the safetensors file under the key `{CONFIG_KEY}`"
        )
    return config.encode()


def _metadata(weights: Path) -> dict[str, Any]:
    """Return the metadata of a safetensors file. It is empty if the header is malformed."""
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(min(size, MAX_HEADER_BYTES))
    try:
        header = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}
