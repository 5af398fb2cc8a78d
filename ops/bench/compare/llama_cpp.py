"""Starts the server of llama.cpp, with a base model and adapters in its own format.

`ops/docs/benchmarks.md` describes how to build it.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.bench.measurement_process import MeasurementFailed
from ops.bench.server_processes import Serving, clean_environment, process, wait_until_serves
from ops.bench.servers import BASE
from ops.local.cores import usable_cores
from ops.local.ports import free_port
from shared.errors import SettingsError

START_TIMEOUT_S = 180.0
TOKENS_PER_SLOT = 512
"""Context of each concurrent request. A prompt of 128 words and its answer take about 260."""


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """A folder with llama.cpp's source, in which `build` has its programs."""

    source: Path

    @property
    def server(self) -> Path:
        """Path of the server."""
        return self._program("llama-server")

    @property
    def quantize(self) -> Path:
        """Path of the program that converts a base model to another type."""
        return self._program("llama-quantize")

    @property
    def perplexity(self) -> Path:
        """Path of the program that compares the predictions of two base models."""
        return self._program("llama-perplexity")

    @property
    def convert_lora(self) -> Path:
        """Path of the script that converts an adapter."""
        return self.source / "convert_lora_to_gguf.py"

    def _program(self, name: str) -> Path:
        return self.source / "build" / "bin" / name


def check_llama_cpp(source: Path) -> LlamaCpp:
    """Return the llama.cpp in the folder `source`.

    Raises:
        SettingsError: the folder lacks a program or the script.
    """
    found = LlamaCpp(source.absolute())
    for needed in (found.server, found.quantize, found.perplexity, found.convert_lora):
        if not needed.exists():
            raise SettingsError(
                f"--llama {source}: {needed} doesn't exist; "
                "ops/docs/benchmarks.md describes how to build it"
            )
    return found


def convert_base(llama: LlamaCpp, gguf: Path, kind: str, target: Path) -> Path:
    """Write the base model `gguf` to `target` in the type `kind`, such as Q8_0.

    Raises:
        MeasurementFailed: the conversion failed.
    """
    run_program(llama.quantize, "--allow-requantize", gguf, target, kind)
    return target


def convert_adapters(
    llama: LlamaCpp, model: Path, adapters: Mapping[str, Path], scratch: Path
) -> dict[str, Path]:
    """Convert PEFT adapters of the model in folder `model` to files in `scratch`.

    Raises:
        MeasurementFailed: a conversion failed.
    """
    files = {name: scratch / f"{name}.gguf" for name in adapters}
    for name, folder in adapters.items():
        options = ("--base", model, "--outtype", "bf16", "--outfile", files[name])
        run_program(sys.executable, llama.convert_lora, *options, folder)
    return files


@contextmanager
def llama_cpp(
    llama: LlamaCpp, gguf: Path, adapters: Mapping[str, Path], slots: int, scratch: Path
) -> Iterator[Serving]:
    """Serve the model `gguf` and its converted adapters to `slots` concurrent requests.

    The server uses all cores, and caches no prompts.

    Raises:
        ServerFailed: the server didn't become ready.
    """
    port, cores = free_port(), str(usable_cores())
    command = [
        *(str(llama.server), "--model", str(gguf), "--alias", BASE),
        *("--host", "127.0.0.1", "--port", str(port), "--threads", cores, "--no-webui"),
        *("--parallel", str(slots), "--ctx-size", str(slots * TOKENS_PER_SLOT)),
        *("--cache-ram", "0"),
    ]
    if adapters:
        command += ["--lora", ",".join(map(str, adapters.values())), "--lora-init-without-apply"]
    with process("llama", command, scratch, clean_environment()) as started:
        url = f"http://127.0.0.1:{port}"
        wait_until_serves(
            url,
            ready="/health",
            names={BASE},
            started=[started],
            timeout_s=START_TIMEOUT_S,
            scratch=scratch,
        )
        yield Serving(
            url=f"{url}/v1",
            pids={"llama": started.pid},
            fields=_fields(adapters),
            reuses_connections=False,  # it may close one that carries the next request
        )


def _fields(adapters: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the fields of requests by model. An adapter has no name, but a number."""
    plain = {"cache_prompt": False}
    numbered = {
        name: {**plain, "lora": [{"id": number, "scale": 1.0}]}
        for number, name in enumerate(adapters)
    }
    return {BASE: plain, **numbered}


def run_program(*command: str | Path) -> str:
    """Run a program of llama.cpp, and return its output.

    Raises:
        MeasurementFailed: the program exited with a nonzero status.
    """
    done = subprocess.run(
        list(map(str, command)),
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise MeasurementFailed(
            f"{command[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}"
        )
    return done.stdout
