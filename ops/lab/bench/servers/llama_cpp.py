"""Starts the server of llama.cpp, with a base model and adapters in llama.cpp's format.

`ops/docs/benchmarks.md` describes how to build the server.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.lab.bench.frame.measurement_process import MeasurementFailed
from ops.lab.bench.servers.model_servers import BASE
from ops.lab.server_processes import Serving, clean_environment, process, wait_until_serves
from ops.local.cores import usable_cores
from ops.local.ports import free_port
from shared.errors import SettingsError

SERVER, QUANTIZE = "llama-server", "llama-quantize"
KINDS = ("BF16", "Q8_0")
"""Weight formats in which llama.cpp serves the base model from GGUF files."""
START_TIMEOUT_S = 180.0
TOKENS_PER_SLOT = 512
"""Context of each concurrent request in tokens.

A prompt of 128 words and its answer take about 260 tokens.
"""


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """llama.cpp's source folder. Its subfolder `build` has the programs."""

    source: Path

    def program(self, name: str) -> Path:
        """Return the path of a program."""
        return self.source / "build" / "bin" / name

    @property
    def convert_lora(self) -> Path:
        """Path of the script that converts an adapter."""
        return self.source / "convert_lora_to_gguf.py"


def check_llama_cpp(source: Path) -> LlamaCpp:
    """Return the llama.cpp in the folder `source`.

    Raises:
        SettingsError: the folder lacks a program or the script.
    """
    found = LlamaCpp(source.absolute())
    for needed in (found.program(SERVER), found.program(QUANTIZE), found.convert_lora):
        if not needed.exists():
            raise SettingsError(
                f"--llama {source}: {needed} doesn't exist; "
                "ops/docs/benchmarks.md describes how to build it"
            )
    return found


def converted(
    llama: LlamaCpp, gguf: Path, model: Path, adapters: Mapping[str, Path], scratch: Path
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Convert the base model `gguf` to each of `KINDS`, and PEFT adapters of `model` to GGUF.

    Returns:
        The files of the base model by weight format, and the files of the adapters by name.

    Raises:
        MeasurementFailed: a conversion failed.
    """
    scratch.mkdir()
    bases = {kind: scratch / f"{kind}.gguf" for kind in KINDS}
    for kind, file in bases.items():
        run_program(llama.program(QUANTIZE), "--allow-requantize", gguf, file, kind)
    files = {name: scratch / f"{name}.gguf" for name in adapters}
    for name, folder in adapters.items():
        options = ("--base", model, "--outtype", "bf16", "--outfile", files[name])
        run_program(sys.executable, llama.convert_lora, *options, folder)
    return bases, files


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
        *(str(llama.program(SERVER)), "--model", str(gguf), "--alias", BASE),
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
            reuses_connections=False,  # it may close a connection on which the next request is sent
        )


def _fields(adapters: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the additional request fields for each model, by the model's name.

    The fields of an adapter select it by its number.
    """
    plain = {"cache_prompt": False}
    numbered = {
        name: {**plain, "lora": [{"id": number, "scale": 1.0}]}
        for number, name in enumerate(adapters)
    }
    return {BASE: plain, **numbered}


def run_program(*command: str | Path) -> None:
    """Run a program of llama.cpp.

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
