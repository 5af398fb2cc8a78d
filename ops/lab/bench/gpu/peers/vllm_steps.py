"""Measures vLLM's decode steps in a separate process, for the model shape that Lorikeet serves."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

import torch

from ops.lab.bench.gpu.model import llama_config
from ops.lab.bench.gpu.part import NotMeasured
from ops.lab.bench.gpu.sizes import Sizes
from ops.lab.machine import ROOT

FIRST_FIELD = '{"batch"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """Duration of a decode step of vLLM, with one batch size and without adapters."""

    batch: int
    step_ms: float
    tokens_per_s: float


def vllm_steps(sizes: Sizes, dtype: torch.dtype) -> Generator[Vllm]:
    """Measure vLLM's decode steps with random weights, for each of `Sizes.vllm_batches`.

    Raises:
        NotMeasured: vLLM isn't installed, or it failed.
    """
    if find_spec("vllm") is None:
        raise NotMeasured("vLLM isn't installed")
    with TemporaryDirectory(prefix="lorikeet-bench-") as folder:
        config = llama_config(sizes)
        config.architectures, config.dtype = ["LlamaForCausalLM"], str(dtype).split(".")[1]
        config.save_pretrained(folder)
        for figures in _figures(Path(folder), sizes):
            yield Vllm(**figures)


def _figures(folder: Path, sizes: Sizes) -> Generator[dict[str, Any]]:
    """Yield the figures that `vllm_process` prints, one dict per line."""
    batches = ",".join(map(str, sizes.vllm_batches))
    arguments = [str(folder), batches, str(sizes.context), str(sizes.vocab_size)]
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.lab.bench.gpu.peers.vllm_process", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            # vLLM also prints other lines.
            yield from (json.loads(line) for line in process.stdout if line.startswith(FIRST_FIELD))
            status = process.wait()
        finally:
            _kill_group(process)
            process.stdout.close()
        if status:
            raise NotMeasured(f"vLLM ended with status {status}: {_last_line(log)}")


def _kill_group(process: subprocess.Popen[str]) -> None:
    """End the process and its children. Otherwise, the children would keep GPU memory."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    return ([line for line in log.read().splitlines() if line.strip()] or ["no message"])[-1]
