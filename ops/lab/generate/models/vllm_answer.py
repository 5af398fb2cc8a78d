"""Serves one tiny model with the vLLM engine. Runs in the Python that has vLLM.

`python -m ops.lab.generate.models.vllm_answer FOLDER DTYPE` serves `FOLDER/base`, with the adapter
in `FOLDER/adapter` if there is one, and prints an `Answer` as JSON.
"""

import contextlib
import json
import os
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.lab.generate.models.score import Scored, scores
from shared.errors import AdapterRejected, ModelRejected
from shared.protocol.ids import AdapterVersion
from shared.settings import WorkerSettings, load_settings
from worker.engine.interface import AdapterImage
from worker.engine_vllm.environment import set_environment
from worker.served_model import ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What vLLM answered, or why it refused the model."""

    refusal: str = ""
    adapters_refusal: str = ""
    """Why the adapter isn't served. The base model answered both prompts then."""
    base: Scored | None = None
    tuned: Scored | None = None


def answer(folder: Path, dtype: str) -> Answer:
    """Serve the model in `folder` on CPUs."""
    settings = load_settings(
        WorkerSettings,
        engine="vllm",
        model=str(folder / "base"),
        device="cpu",
        dtype=dtype,
        threads=1,
        max_num_seqs=4,
        max_model_len=128,
        kv_cache_mb=64,
        max_lora_rank=8,
        adapter_store=folder / "store",
    )
    set_environment(settings, os.environ)
    from worker.engine_vllm.load_model import load_vllm

    try:
        served = load_vllm(settings, on_lost=lambda: None)
    except ModelRejected as error:
        return Answer(refusal=str(error).replace(str(folder / "base"), "M"))
    with contextlib.closing(served):
        version, refusal = _adapter(served, folder / "adapter")
        base, tuned = scores(served.engine, version)
    return Answer(adapters_refusal=refusal, base=base, tuned=tuned)


def _adapter(served: ServedModel, folder: Path) -> tuple[AdapterVersion | None, str]:
    """Make the adapter in `folder` resident.

    Return the adapter's version and an empty text. If there is no adapter, or the adapter is
    refused, return None and the reason.
    """
    if not folder.is_dir():
        return None, "PEFT can't adapt all linears"
    try:
        return resident(served, "a", folder), ""
    except AdapterRejected as error:
        return None, str(error)


def resident(served: ServedModel, name: str, folder: Path) -> AdapterVersion:
    """Load an adapter into the engine, and return its version. Raises AdapterRejected."""
    supply, engine = served.adapters, served.engine
    image: AdapterImage = supply.host.put(supply.source.read(name, str(folder)).weights)
    placing = engine.place(image)
    assert placing.reserved is not None
    engine.write_adapter(placing.reserved, image)
    engine.activate_adapter(placing.reserved, image)
    return image.version


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answer only
        found = answer(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps(asdict(found)), flush=True)
    os._exit(0)  # vLLM's processes may not end by themselves
