"""Loads a base model with the cores and memory settings of a worker."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from worker.startup.process_tuning import share_cores, use_huge_pages

if TYPE_CHECKING:  # the loader imports torch
    from worker.model.loader import LoadedModel
    from worker.model.quantise import Quantize


def load_as_worker(model: Path, *, quantize: "Quantize | None" = None) -> "LoadedModel":
    """Load the model in bfloat16 on the CPU, and let the calling thread use all cores.

    If `quantize` is given, the weights are quantised to this format.

    The process must not have imported torch yet, because OpenMP reads its settings during that
    import.
    """
    assert "torch" not in sys.modules
    share_cores()
    use_huge_pages()
    import torch

    from worker.model.loader import load_model
    from worker.startup.openmp import take_cores

    loaded = load_model(str(model), dtype="bfloat16", device="cpu", quantize=quantize)
    take_cores(torch.get_num_threads(), loaded.kernels)
    return loaded
