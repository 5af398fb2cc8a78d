"""Selects the torch device of a worker."""

import torch

from shared.errors import ModelRejected, first_line

_OR_CPU = "or use --device cpu"


def pick_device(device: str) -> torch.device:
    """Return the torch device with this name. `auto` selects a GPU, or the CPU if there is none.

    Raises:
        ModelRejected: torch can't use the device on this machine. The message says what is missing.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise ModelRejected(
            f"--device {device}: no such device; use auto, cpu, cuda or cuda:N"
        ) from None
    if picked.type == "cuda":
        _check_cuda(device, picked)
    try:
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelRejected(f"--device {device}: {first_line(error)}") from None
    return picked


def _check_cuda(device: str, picked: torch.device) -> None:
    if torch.version.cuda is None and torch.version.hip is None:
        reason = (
            f"torch {torch.__version__} was built for CPUs alone; install a torch with CUDA "
            "(`pip install --force-reinstall torch` gets one on Linux)"
        )
    elif (number := torch.cuda.device_count()) == 0:
        reason = (
            "no GPU can be used here; check that nvidia-smi lists it, and that "
            "CUDA_VISIBLE_DEVICES doesn't hide it"
        )
    elif picked.index is not None and picked.index >= number:
        reason = f"the last GPU here is cuda:{number - 1}; CUDA_VISIBLE_DEVICES may hide others"
    else:
        return
    raise ModelRejected(f"--device {device}: {reason}, {_OR_CPU}")
