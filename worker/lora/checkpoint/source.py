"""Finds an adapter's files: in a folder, or on the Hugging Face hub."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from shared.errors import AdapterRejected

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
TEMPLATE_FILES = ("*.jinja", "tokenizer_config.json", "generation_config.json")
"""What else of an adapter's folder changes its answers."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLED = (
    "adapter_model.bin can run code when it is read and isn't served; convert it by loading the "
    "adapter with peft and calling save_pretrained(folder, safe_serialization=True)"
)


def adapter_folder(source: str) -> Path:
    """The local folder of `source`, downloaded first if it is a hub id.

    The hub client's own settings hold (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, ...).

    Raises:
        AdapterRejected: there is no such folder, or the hub doesn't give it.
    """
    path = Path(source).expanduser()
    if source and path.is_dir():
        return path
    if path.exists() or not is_hub_id(source):
        raise AdapterRejected(f"{source!r} is neither a folder nor a hub id (org/name)")
    try:
        folder = snapshot_download(
            source, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, *TEMPLATE_FILES]
        )
    except Exception as error:  # the client lets errors of its HTTP library through
        raise AdapterRejected(
            f"{source!r} is no folder here, and the Hugging Face hub doesn't give it: {error}"
        ) from error
    return Path(folder)


def is_hub_id(source: str) -> bool:
    """Whether `source` looks like `org/name`."""
    return _HUB_ID.fullmatch(source) is not None


def adapter_file(folder: Path, name: str) -> Path:
    """The file `name` of an adapter's folder.

    Raises:
        AdapterRejected: it is missing, no regular file, or a link that leaves the folder.
    """
    path = folder / name
    if not path.is_file():
        hint = f" ({_PICKLED})" if name == WEIGHTS_FILE else ""
        raise AdapterRejected(f"{path} is missing{hint}")
    if not path.resolve().is_relative_to(link_root(folder)):
        raise AdapterRejected(f"{path} is a link out of its folder")
    return path


def template_files(folder: Path) -> list[Path]:
    """The files that go with `TEMPLATE_FILES`, by name.

    Raises:
        AdapterRejected: one of them is a link that leaves the folder.
    """
    names = {path.name for pattern in TEMPLATE_FILES for path in folder.glob(pattern)}
    return [adapter_file(folder, name) for name in sorted(names)]


def link_root(folder: Path) -> Path:
    """What links in `folder` may point into: it, or in the hub's cache all of its repository."""
    resolved = folder.resolve()
    return resolved.parents[1] if resolved.parent.name == "snapshots" else resolved
