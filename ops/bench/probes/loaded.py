"""A base model in this process, with cores and memory as a worker has them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from worker.startup.huge_pages import use_huge_pages
from worker.startup.process_tuning import share_cores

if TYPE_CHECKING:  # it imports torch
    from worker.model.loader import LoadedModel


def load_as_worker(model: Path) -> "LoadedModel":
    """The model in bfloat16 on the CPU; this thread computes with all cores from here on.

    Call it before anything imports torch, as OpenMP then reads how long its threads spin.
    """
    assert "torch" not in sys.modules
    share_cores()
    use_huge_pages()
    import torch

    from worker.model.loader import load_model
    from worker.startup.openmp import take_cores

    loaded = load_model(str(model), dtype="bfloat16", device="cpu")
    take_cores(torch.get_num_threads(), loaded.kernels)
    return loaded
