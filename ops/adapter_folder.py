"""Finds the adapter in a folder that a trainer has written, for `lorikeet adapters push`.

PEFT, TRL and Unsloth save an adapter into the folder that is named, and transformers' trainers save
one into `checkpoint-N` after some steps. Axolotl and LLaMA-Factory do both. Archives have the
same folders, often below another one.
"""

import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from shared.errors import AdapterRejected, SettingsError
from shared.protocol.adapter_files import CONFIG_FILE, PICKLED_FILE, WEIGHTS_FILE, is_prompt_file

MAX_DEPTH = 3
"""Number of levels below the named folder that are searched for an adapter."""
MAX_LISTED = 8
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_MERGED = ("model*.safetensors", "pytorch_model*.bin", "*.gguf")
"""Patterns of the weights of whole models."""


@contextmanager
def adapter_in(path: Path) -> Iterator[Path]:
    """Provide the folder of the adapter in `path`: a folder, or a zip archive of one.

    An adapter directly in the folder is preferred to those in its subfolders. If there are
    several checkpoints, the last complete one is chosen.

    Raises:
        SettingsError: there is no such folder or archive, or it has several adapters.
        AdapterRejected: it has no adapter. The message says what it has instead.
    """
    if path.is_dir():
        yield _found(path)
    elif zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory(prefix="lorikeet-push-") as folder:
            _extract(path, Path(folder))
            with _named_after(path, Path(folder)):
                yield _found(Path(folder))
    else:
        raise SettingsError(
            f"{path} is neither a folder nor a zip archive on this machine; `lorikeet adapters "
            "load` loads an adapter from the hub or from a URL"
        )


@contextmanager
def _named_after(archive: Path, folder: Path) -> Iterator[None]:
    """If the block raises an error, make its message name the archive, not the temporary folder."""
    try:
        yield
    except (AdapterRejected, SettingsError) as error:
        raise type(error)(str(error).replace(str(folder), str(archive))) from None


def _extract(archive: Path, folder: Path) -> None:
    """Extract the files of adapters, and files that show why there is no adapter."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                if _is_of_adapter(PurePosixPath(name).name):
                    opened.extract(name, folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise SettingsError(f"{archive} can't be unpacked: {error}") from None


def _is_of_adapter(name: str) -> bool:
    return name in (CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE) or is_prompt_file(name)


def _found(folder: Path) -> Path:
    for depth in range(MAX_DEPTH + 1):
        level = "/".join(["*"] * depth + [CONFIG_FILE])
        if folders := sorted(file.parent for file in folder.glob(level)):
            return _chosen(folder, folders)
    raise AdapterRejected(_why_none(folder))


def _chosen(root: Path, folders: Sequence[Path]) -> Path:
    """Return the only folder, or the last complete checkpoint of several."""
    complete = [folder for folder in folders if (folder / WEIGHTS_FILE).is_file()]
    if not complete:
        raise AdapterRejected(_why_incomplete(folders[-1]))
    numbers = [_number(folder) for folder in complete]
    if len(complete) > 1 and (None in numbers or len({each.parent for each in complete}) > 1):
        listed = ", ".join(str(folder.relative_to(root)) for folder in complete[:MAX_LISTED])
        raise SettingsError(f"{root} has {len(complete)} adapters; name one of them: {listed}")
    return max(complete, key=lambda folder: _number(folder) or 0)


def _number(folder: Path) -> int | None:
    """Return the step number of a checkpoint; None if the folder isn't a checkpoint."""
    found = _CHECKPOINT.fullmatch(folder.name)
    return int(found[1]) if found else None


def _why_incomplete(folder: Path) -> str:
    if (folder / PICKLED_FILE).is_file():
        return (
            f"{folder} has {PICKLED_FILE}, which can run code when it is read; load the adapter "
            "with peft, and save it with save_pretrained(folder)"
        )
    return f"{folder / WEIGHTS_FILE} is missing; the training may still be writing it"


def _why_none(folder: Path) -> str:
    """Return what a folder without an adapter has instead, and what to do."""
    if (folder / WEIGHTS_FILE).is_file():
        return f"{folder / CONFIG_FILE} is missing; save the adapter with save_pretrained(folder)"
    if any(any(folder.glob(pattern)) for pattern in _MERGED):
        return (
            f"{folder} has a whole model, not an adapter; save the adapter with PEFT's "
            "save_pretrained(folder) (in Unsloth not save_pretrained_merged), or serve the model: "
            f"lorikeet up {folder}"
        )
    return f"{folder} has no {CONFIG_FILE}, and neither have its subfolders; name another folder"
