"""The files of one adapter, each located and parsed once per load."""

from contextlib import suppress
from functools import cached_property
from pathlib import Path

from shared.errors import AdapterRejected
from shared.protocol.adapter_files import CONFIG_FILE, PICKLED_FILE, PROMPT_FILES, WEIGHTS_FILE
from worker.lora.checkpoint.config import AdapterConfig, config_fields, parse_config, read_config
from worker.lora.checkpoint.hub import adapter_folder
from worker.lora.checkpoint.safetensors_header import Header, read_header

MAX_BASE_NAME_CHARS = 1024
"""Maximum length of the name of a base model. Comparing names takes quadratic time."""
_PICKLED = (
    f"{PICKLED_FILE} can run code when it is read, so it is read only for adapters that --adapters "
    "names; convert it by loading the adapter with peft and calling save_pretrained(folder)"
)

FileStamp = tuple[str, int, int, int, int]
"""Name, inode, size, mtime and ctime of a file. Writing or replacing the file changes the stamp."""


class AdapterFiles:
    """The files in one adapter's folder.

    Each load creates one instance and passes it to the size check, the header report and the
    tensor reader. A property reads its file on first use, and keeps what it has read.
    """

    def __init__(
        self, folder: Path, source: str | None = None, *, is_operators: bool = False
    ) -> None:
        """Create an object for the files in `folder`, the local folder of `source`.

        Set `is_operators` if the operator, not a client, named the adapter. Only then may the
        adapter have pickled weights, and patterns that can't be matched in linear time.
        """
        self.folder = folder
        self.source = str(folder) if source is None else source
        """Folder or hub id that error messages show."""
        self._is_operators = is_operators
        self.stamps = _stamps(folder)
        """Stamps of the files when this object was created."""

    @classmethod
    def find(cls, source: str, *, is_operators: bool = False) -> "AdapterFiles":
        """Return the files at a folder or hub id. Raises AdapterRejected if they can't be found."""
        folder = adapter_folder(source, is_operators)
        return cls(folder, source, is_operators=is_operators)

    @cached_property
    def config(self) -> AdapterConfig:
        """The parsed adapter_config.json. Raises AdapterRejected if it isn't supported."""
        return parse_config(self._config_text, self._is_operators)

    @cached_property
    def base_model_name(self) -> str | None:
        """Base model that adapter_config.json names. None if the name is unreadable or too long."""
        try:
            name = config_fields(self._config_text).get("base_model_name_or_path")
        except (AdapterRejected, OSError):
            return None
        return name if isinstance(name, str) and len(name) <= MAX_BASE_NAME_CHARS else None

    @property
    def are_pickled(self) -> bool:
        """Whether the weights must be converted by `pickled_weights.py` before they are read."""
        names = {name for name, *_ in self.stamps}
        return self._is_operators and PICKLED_FILE in names and WEIGHTS_FILE not in names

    @cached_property
    def weights_path(self) -> Path:
        """Path of the file with the weights. Raises AdapterRejected if there is no such file."""
        return adapter_file(self.folder, PICKLED_FILE if self.are_pickled else WEIGHTS_FILE)

    @property
    def header(self) -> Header:
        """The parsed header of the weights file. Raises AdapterRejected if it is malformed."""
        if isinstance(self._header, Header):
            return self._header
        raise self._header.with_traceback(None)

    @cached_property
    def prompt_paths(self) -> list[Path]:
        """Paths of the prompt files, sorted. Raises AdapterRejected if one links elsewhere."""
        return [adapter_file(self.folder, name) for name in sorted(prompt_file_names(self.folder))]

    @property
    def paths(self) -> list[Path]:
        """Paths of all files that belong to the adapter."""
        return [self._config_path, self.weights_path, *self.prompt_paths]

    @cached_property
    def _config_path(self) -> Path:
        return adapter_file(self.folder, CONFIG_FILE)

    @cached_property
    def _header(self) -> Header | AdapterRejected | OSError:
        """The parsed header, or the error that reading it raised. The file is read only once."""
        try:
            return read_header(self.weights_path)
        except (AdapterRejected, OSError) as error:
            return error

    @cached_property
    def _config_text(self) -> bytes:
        return read_config(self._config_path)

    def check(self) -> None:
        """Check the files as far as that is possible without the base model, torch and PEFT.

        Raises:
            AdapterRejected: a file is missing or malformed, or a setting isn't supported.
            OSError: a file can't be read.
        """
        _ = self.config, self.weights_path if self.are_pickled else self.header, self.prompt_paths

    def have_changed(self) -> bool:
        """Return whether a file has changed, appeared or vanished since this object was created."""
        return _stamps(self.folder) != self.stamps


def adapter_file(folder: Path, name: str) -> Path:
    """Return the path of the file `name` in an adapter's folder.

    Raises:
        AdapterRejected: the file is missing, isn't a regular file, or is a link to a place outside
            the folder.
    """
    path = folder / name
    if not path.is_file():
        hint = f" ({_PICKLED})" if name == WEIGHTS_FILE else ""
        raise AdapterRejected(f"{path} is missing{hint}")
    if not path.resolve().is_relative_to(link_root(folder)):
        raise AdapterRejected(f"{path} is a link to a place outside its folder; copy the file")
    return path


def prompt_file_names(folder: Path) -> set[str]:
    """Return the names of the folder's files that match `PROMPT_FILES`."""
    return {path.name for pattern in PROMPT_FILES for path in folder.glob(pattern)}


def link_root(folder: Path) -> Path:
    """Return the folder outside which an adapter's links must not point.

    For a snapshot of the hub, it is the repository's folder, otherwise `folder`.
    """
    resolved = folder.resolve()
    return resolved.parents[1] if resolved.parent.name == "snapshots" else resolved


def _stamps(folder: Path) -> list[FileStamp]:
    """Return the stamps of the adapter's files. Files that don't exist have no stamp."""
    stamps = []
    for name in sorted({CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE} | prompt_file_names(folder)):
        with suppress(OSError):
            status = (folder / name).stat()
            times = status.st_mtime_ns, status.st_ctime_ns
            stamps.append((name, status.st_ino, status.st_size, *times))
    return stamps
