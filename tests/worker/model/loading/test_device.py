"""A device that this machine doesn't have is refused with the reason."""

import pytest
import torch

from shared.errors import ModelRejected
from worker.model.loading.device import pick_device


def test_the_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_torch_for_cpus_cannot_use_gpus(device: str) -> None:
    with pytest.raises(ModelRejected) as caught:
        pick_device(device)
    message = str(caught.value)
    assert message.startswith(f"--device {device}: torch {torch.__version__} was built for CPUs")
    assert "pip install --force-reinstall torch" in message
    assert message.endswith("or use --device cpu")


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch has no CUDA")
def test_a_gpu_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelRejected, match=r"--device cuda:99: .* or use --device cpu"):
        pick_device("cuda:99")


def test_an_unknown_device_is_refused_with_the_possible_ones() -> None:
    with pytest.raises(ModelRejected, match="--device nonsense: no such device; use auto, cpu"):
        pick_device("nonsense")
