"""Converts the weights that old versions of PEFT have saved, `adapter_model.bin`, to safetensors.

Reading a pickle can run code. Therefore torch's restricted unpickler reads these files. An
adapter's file is read only if the operator named the adapter.
"""

import shutil
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from shared.errors import AdapterRejected, StoreFailed, first_line
from shared.protocol.adapter_files import PICKLED_FILE, WEIGHTS_FILE
from worker.lora.checkpoint.adapter_files import AdapterFiles


def unpickled(path: Path) -> dict[str, torch.Tensor]:
    """Return, by name, the tensors of a file that `torch.save` has written.

    The tensors are mapped to memory.

    torch's option `weights_only` builds tensors and plain containers, and calls no function that
    the file names.

    Raises:
        ValueError: the file contains anything but named tensors, or was saved before torch 1.6.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} isn't a file of torch 1.6 or later; save it again")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a broken file makes torch raise almost any error
        raise ValueError(f"{path} can't be read: {first_line(error)}") from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items()
    ):
        raise ValueError(f"{path} doesn't hold tensors by name")
    return found


def converted(files: AdapterFiles, folder: Path) -> AdapterFiles:
    """Copy an adapter's files to the empty `folder`, and convert its pickle to safetensors.

    Raises:
        AdapterRejected: the weights can't be read as tensors, or aren't dense tensors.
        StoreFailed: the files can't be written.
    """
    pickled = files.folder / PICKLED_FILE
    try:
        # Tensors of a pickle may share memory, which safetensors refuses.
        tensors = {name: t.clone().contiguous() for name, t in unpickled(pickled).items()}
        save_file(tensors, folder / WEIGHTS_FILE)
        for path in files.paths:
            if path.name != PICKLED_FILE:
                shutil.copyfile(path, folder / path.name)
    except (OSError, SafetensorError) as error:
        raise StoreFailed(f"--adapter-store: can't write to {folder}: {error}") from error
    except ValueError as error:
        raise AdapterRejected(str(error)) from error
    except Exception as error:  # sparse tensors and others that safetensors doesn't hold
        raise AdapterRejected(f"{pickled} can't be converted: {first_line(error)}") from error
    return AdapterFiles(folder, files.source, is_operators=True)
