"""Finds the base model and reads its shape, without downloading or loading its weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from ops.demo.model import demo_folder
from ops.doctor.facts import BaseFacts, Problem
from shared.errors import ModelRejected
from shared.settings import WorkerSettings
from worker.engine_vllm.checkpoint_format import check_format
from worker.model.loading.folder import weight_files

if TYPE_CHECKING:
    from ops.doctor.model_shape import ModelShape

DEMO = "demo"
HUB_TIMEOUT_S = 5.0
"""Time limit in seconds of a request to the Hugging Face hub."""
DEMO_BYTES = 480 << 20
"""Disk space in bytes for the demo's first start: download, conversion and converted model."""


_SHAPE_FILES = ["config.json", "tokenizer_config.json", "tokenizer.model"]
"""Names of the files from which a model's shape is read.

The tokenizer's files distinguish the generations of chatglm.
"""


@dataclass(frozen=True, slots=True)
class Base:
    """A base model, and its shape if it can be read."""

    facts: BaseFacts
    shape: "ModelShape | None" = None
    folder: Path | None = None
    """Folder or GGUF file of the model, or None if the first start downloads or converts it."""


def find_base(worker: WorkerSettings, source: str) -> Base:
    """Return the base model of a worker's settings. The command line names it `source`.

    The first call for the native engine imports torch and transformers, which takes seconds.
    """
    if worker.engine == "simulated":
        return Base(BaseFacts(source=source, place="simulated, without files"))
    if source == DEMO and not demo_folder().is_dir():
        return _shaped(worker, source, None, "converted at the first start, in half a minute")
    try:
        folder, place = _folder_of(worker.model)
    except ModelRejected as error:
        return Base(BaseFacts(source=source, place="", problem=Problem(str(error))))
    found = _shaped(worker, source, folder, place)
    return replace(found, folder=folder) if weight_files(folder) else found


def _folder_of(model: str) -> tuple[Path, str]:
    """Return the folder with the model's configuration, and a text that says where the files are.

    Raises:
        ModelRejected: the model isn't found or can't be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import LocalEntryNotFoundError

    from worker.lora.checkpoint.hub import why_not_downloaded
    from worker.model.loading.folder import FILES, find_model

    folder = Path(model).expanduser()
    if folder.exists():
        return find_model(model), str(folder.resolve())
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        return find_model(model), ""  # raises ModelRejected
    try:
        cached = Path(snapshot_download(model, allow_patterns=FILES, local_files_only=True))
        if weight_files(cached):
            return cached, f"in the hub's cache: {cached}"
    except LocalEntryNotFoundError:
        pass
    try:
        # Without a network, this fails at once, while the hub's client would retry.
        httpx.head(ENDPOINT, timeout=HUB_TIMEOUT_S)
        found = snapshot_download(model, allow_patterns=_SHAPE_FILES, etag_timeout=HUB_TIMEOUT_S)
    except Exception as error:  # the hub's client raises errors of its HTTP library too
        raise ModelRejected(
            f"--model {model}: there is no such folder, and {why_not_downloaded(error)}"
        ) from error
    return Path(found), "downloaded from the hub at the first start"


def _vllm_problem(source: str, folder: Path | None) -> Problem | None:
    if folder:
        try:
            check_format(source, folder)
        except ModelRejected as error:
            return Problem(str(error))
    return None


def _shaped(worker: WorkerSettings, source: str, folder: Path | None, place: str) -> Base:
    """Return the base model. Its shape is included unless vLLM serves the model.

    `folder` is None if the demo model hasn't been converted yet.
    """
    if worker.engine == "vllm":
        return Base(BaseFacts(source=source, place=place, problem=_vllm_problem(source, folder)))
    try:
        import torch

        from ops.doctor.model_shape import demo_shape, served_shape
    except ImportError as error:
        problem = Problem(f"{error.name} isn't installed", "run `pip install lorikeet-serve`")
        return Base(BaseFacts(source=source, place=place, problem=problem))
    dtype = torch.bfloat16 if worker.dtype == "auto" else getattr(torch, worker.dtype)
    try:
        if folder:
            shape = served_shape(source, folder, dtype, worker.quantize)
        else:
            shape = demo_shape(dtype, worker.quantize)
    except ModelRejected as error:
        return Base(BaseFacts(source=source, place=place, problem=Problem(str(error))))
    facts = BaseFacts(
        source=source,
        place=place,
        architecture=shape.architecture,
        num_parameters=shape.num_parameters,
        weight_bytes=shape.weight_bytes,
        max_model_len=shape.max_model_len,
    )
    return Base(facts, shape)
