"""Finds the files of a base model and computes their digest while the model is loaded."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from shared.errors import ModelRejected
from worker.lora.checkpoint.hub import why_not_downloaded

FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
"""Patterns of the names of the files that a model consists of."""
PICKLES = "pytorch_model*.bin"
"""Pattern of the names of pickled weight files.

They are read only for a chatglm checkpoint that has no other weight files."""
TOKENIZER_FILE = "tokenizer.model"
MAX_THREADS = 4
"""Maximum number of files that are hashed at the same time."""
CHUNK_BYTES = 4 << 20


GGUF = ".gguf"
"""Ending of the name of a file that holds a whole model, in the format of llama.cpp."""


def find_model(source: str) -> Path:
    """Return a model's folder, downloaded if necessary, or its GGUF file.

    Raises:
        ModelRejected: no model is found at `source`.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() or (folder.suffix == GGUF and folder.is_file()):
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or folder.suffix == GGUF:
        kind = "file" if folder.suffix == GGUF else "folder"
        raise ModelRejected(f"--model {source}: this {kind} doesn't exist")
    folder = _download(source, FILES)
    if is_chatglm(folder) and not any(folder.glob("*.safetensors")):
        _download(source, [*FILES, PICKLES])
    return folder


def _download(source: str, patterns: Sequence[str]) -> Path:
    # Commands check folders without the time that these imports take.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=list(patterns)))
    except Exception as error:  # the client also raises errors of its HTTP library
        raise ModelRejected(
            f"--model {source}: there is no such folder, and {why_not_downloaded(error)}"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's weights, sorted. Pickles are left out if there are others."""
    if folder.is_file():
        return [folder]
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob(PICKLES))


def config_fields(folder: Path) -> dict[str, Any]:
    """Return the fields of a model's config.json, or no fields if the file can't be read."""
    try:
        fields = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def is_chatglm(folder: Path) -> bool:
    """Return whether the model is chatglm2, chatglm3 or glm-4 in its original form."""
    return config_fields(folder).get("model_type") == "chatglm"


def model_name(source: str, folder: Path) -> str:
    """Return the model's name: its hub id, its folder's name or its GGUF file's stem."""
    path = Path(source).expanduser()
    if path.suffix == GGUF:
        return path.stem
    return folder.resolve().name if path.is_dir() else source


def model_files(folder: Path) -> list[Path]:
    """Return the files of the model in `folder`, or its GGUF file alone."""
    if folder.is_file():
        return [folder]
    found = {path for pattern in FILES for path in folder.glob(pattern)}
    return sorted(found.union(weight_files(folder)))


class Digest:
    """SHA-256 of a model's files. Threads compute the digest in the background.

    The threads read each file from start to end. A loader that maps the same files at the same time
    therefore finds most of them in the page cache.
    """

    def __init__(self, source: str, folder: Path, pool: ThreadPoolExecutor) -> None:
        self._source = source
        self._stop = Event()
        self._files = [
            (path, pool.submit(_sha256, path, self._stop)) for path in model_files(folder)
        ]

    def stop(self) -> None:
        """Let the threads end early. `result` must not be called afterwards."""
        self._stop.set()

    def result(self) -> str:
        """Wait for the digest, as 64 hex digits. Raises ModelRejected if a file can't be read."""
        digest = hashlib.sha256()
        for path, future in self._files:
            try:
                content = future.result()
            except OSError as error:
                raise ModelRejected(
                    f"--model {self._source}: {path} can't be read: {error}"
                ) from None
            digest.update(path.name.encode() + b"\0" + content)
        return digest.hexdigest()


@contextmanager
def digest_of(source: str, folder: Path) -> Iterator[Digest]:
    """Start to compute the digest of the model in `folder`. The threads end with the context."""
    with ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="digest") as pool:
        digest = Digest(source, folder, pool)
        try:
            yield digest
        finally:
            digest.stop()


def _sha256(path: Path, stop: Event) -> bytes:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while not stop.is_set() and (size := file.readinto(buffer)):
            digest.update(buffer[:size])
    return digest.digest()
