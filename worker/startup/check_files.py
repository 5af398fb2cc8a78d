"""Checks a base model and adapters before anything is started. This takes one second, not ten.

The checks need neither the loaded model nor torch or PEFT, whose imports take seconds. The worker
makes all other checks when it loads the model.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from shared.adapter_sources import is_remote
from shared.errors import AdapterRejected, ModelRejected
from shared.settings import WorkerSettings
from worker.adapters.source.allowed_sources import adapter_roots
from worker.adapters.source.load_at_start import has_bases_name, refusal
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.model.loading.folder import GGUF, find_model, model_name

CONFIG_FILE = "config.json"
_GGUF_START = b"GGUF"


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """Result of checking the files that a worker's settings name."""

    base: Path
    """Folder or GGUF file of the base model."""
    left_out: frozenset[str]
    """Names of adapters that can't be served. Empty unless the settings allow leaving them out."""


def check_files(settings: WorkerSettings) -> CheckedFiles:
    """Check the base model, the adapters and the adapter roots of a worker's settings.

    A model or adapter on the hub is downloaded. Adapters at URLs aren't checked here. The worker
    checks them.

    Raises:
        ModelRejected: the base model's files are missing or broken.
        AdapterRejected: adapters can't be served, and the settings don't allow leaving them out.
            The message names all of them.
        SettingsError: an adapter root isn't a folder, an organisation of the hub or a URL.
    """
    folder = check_base(settings.model)
    adapter_roots(settings)
    bad = _bad_adapters(settings, folder)
    if bad and not settings.skip_bad_adapters:
        raise refusal(list(bad.values()), len(settings.adapter_sources))
    return CheckedFiles(folder, frozenset(bad))


def check_base(source: str) -> Path:
    """Return the base model's folder or file. Raises ModelRejected if it has no readable model."""
    folder = find_model(source)
    if folder.is_file():
        _check_is_gguf(source, folder)
        return folder
    path = folder / CONFIG_FILE
    if not path.is_file():
        if (folder / "adapter_config.json").exists():
            raise ModelRejected(
                f"--model {source}: this is a LoRA adapter; name it in --adapters, and its base "
                "model in --model"
            )
        if files := sorted(each.name for each in folder.glob(f"*{GGUF}")):
            raise ModelRejected(
                f"--model {source}: {path} is missing; name a GGUF file itself: {folder / files[0]}"
            )
        raise ModelRejected(f"--model {source}: {path} is missing; name a folder with a model")
    _check_is_object(source, path)
    return folder


def _check_is_gguf(source: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_GGUF_START))
    except OSError as error:
        raise ModelRejected(f"--model {source}: can't be read: {error}") from None
    if start != _GGUF_START:
        raise ModelRejected(f"--model {source}: this isn't a GGUF file; download it again")


def _check_is_object(source: str, path: Path) -> None:
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelRejected(f"--model {source}: {path} can't be read: {error}") from None
    if not isinstance(fields, dict):
        raise ModelRejected(f"--model {source}: {path} isn't a JSON object")


def _bad_adapters(settings: WorkerSettings, base: Path) -> dict[str, AdapterRejected]:
    """Return an error for each adapter in the settings that can't be served, by name."""
    bases_name = settings.served_name or model_name(settings.model, base)
    found = {}
    for name, source in settings.adapter_sources.items():
        try:
            if name == bases_name:
                raise has_bases_name(name, source)
            _check_adapter(name, source)
        except AdapterRejected as error:
            found[name] = error
    return found


def _check_adapter(name: str, source: str) -> None:
    """Raise AdapterRejected if an adapter's files show that it can't be served.

    Adapters at URLs aren't checked.
    """
    if is_remote(source):
        return
    try:
        AdapterFiles.find(source, is_operators=True).check()
    except (AdapterRejected, OSError) as error:
        raise AdapterRejected(f"adapter {name} from {source}: {error}") from None
