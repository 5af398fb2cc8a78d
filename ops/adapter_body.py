"""Makes the body of POST /v1/adapters from the files of an adapter, for `lorikeet adapters push`.

The body is the safetensors file. The texts of adapter_config.json and of the prompt files are added
to its metadata, so that one body has the whole adapter.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from shared.errors import AdapterRejected
from shared.protocol.adapter_files import CONFIG_FILE, CONFIG_KEY, WEIGHTS_FILE, is_prompt_file

MAX_HEADER_BYTES = 2 << 20
"""Maximum size of the header that workers read. It includes the texts."""
CHUNK_BYTES = 1 << 18
_LENGTH = struct.Struct("<Q")
"""Format of the first bytes of a safetensors file. They contain the length of the header."""
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterBody:
    """The body of one request."""

    start: bytes
    """Length and text of the header."""
    weights: Path
    offset: int
    """Position of the tensors in the weights file."""
    num_bytes: int
    """Size of the body in bytes."""
    prompt_files: tuple[str, ...]
    """Names of the prompt files in the header."""

    def chunks(self, on_sent: Callable[[int], None]) -> Iterator[bytes]:
        """Yield the body in pieces. `on_sent` gets each piece's size once the piece was taken."""
        yield self.start
        on_sent(len(self.start))
        with self.weights.open("rb") as file:
            file.seek(self.offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                on_sent(len(chunk))


def adapter_body(folder: Path) -> AdapterBody:
    """Return the body for the adapter in `folder`.

    Raises:
        AdapterRejected: a file can't be read, isn't text, or is too large.
    """
    weights = folder / WEIGHTS_FILE
    prompt_files = sorted(path.name for path in folder.iterdir() if is_prompt_file(path.name))
    try:
        texts = {CONFIG_KEY: (folder / CONFIG_FILE).read_text("utf-8")}
        texts |= {name: (folder / name).read_text("utf-8") for name in prompt_files}
        header, offset = _header(weights)
        size = weights.stat().st_size
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterRejected(f"{folder} can't be read: {error}") from None
    text = orjson.dumps({**header, _METADATA: {**_metadata(header), **texts}})
    if len(text) > MAX_HEADER_BYTES:
        largest = max(texts, key=lambda name: len(texts[name]))
        raise AdapterRejected(
            f"the texts of {folder} are larger than {MAX_HEADER_BYTES >> 20} MiB together, most of "
            f"all {largest}; move {largest} away if the adapter uses the base model's"
        )
    return AdapterBody(
        start=_LENGTH.pack(len(text)) + text,
        weights=weights,
        offset=offset,
        num_bytes=_LENGTH.size + len(text) + size - offset,
        prompt_files=tuple(prompt_files),
    )


def _header(weights: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and the position of the first tensor."""
    with weights.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else MAX_HEADER_BYTES + 1
        text = file.read(length) if length <= MAX_HEADER_BYTES else b""
    try:
        header = orjson.loads(text)
    except orjson.JSONDecodeError:
        header = None
    if not isinstance(header, dict):
        raise AdapterRejected(f"{weights} isn't a safetensors file, or is cut off; copy it again")
    return header, _LENGTH.size + length


def _metadata(header: dict[str, Any]) -> dict[str, Any]:
    found = header.get(_METADATA)
    return found if isinstance(found, dict) else {}
