"""Measures both forms of the weights, served and in the engine alone, beside llama.cpp."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from ops.bench.compare.llama_cpp import LlamaCpp, convert_adapters, convert_base, llama_cpp
from ops.bench.probes.int8.engines import Engines, in_turn, measure_engines
from ops.bench.probes.int8.forms import worker_flags
from ops.bench.probes.int8.loads import Sizes, alone, mixed
from ops.bench.server_processes import Serving
from ops.bench.servers import NO_PROMPT_LOOKUP, lorikeet

LLAMA_KINDS = ("BF16", "Q8_0")
LLAMA_MIXED_KIND = "Q8_0"
LLAMA_MIXED_EVERY = 5
"""One of so many rounds measures llama.cpp with all clients, because that takes a minute."""

Speeds = Mapping[str, float]
"""Output tokens per second, by server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """All servers and engines, measured one after another."""

    alone: Speeds
    """With one client of the base model."""
    mixed: Speeds
    """With all clients and adapters."""
    worker_rss_bytes: Mapping[str, int]
    """Resident memory of Lorikeet's worker after its loads, by form of the weights."""
    engines: Engines


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaFiles:
    """A base model and its adapters, in llama.cpp's formats."""

    llama: LlamaCpp
    bases: Mapping[str, Path]
    """Files by type."""
    adapters: Mapping[str, Path]
    """Files by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is measured."""

    model: Path
    adapters: Mapping[str, Path]
    """Folders by name. One folder contains all of them, and nothing else."""
    llama: LlamaFiles | None
    sizes: Sizes
    scratch: Path
    """Folder for logs and other files of servers."""


def llama_files(
    llama: LlamaCpp, gguf: Path, model: Path, adapters: Mapping[str, Path], scratch: Path
) -> LlamaFiles:
    """Convert the base model `gguf` to each of `LLAMA_KINDS`, and the adapters of `model`.

    Raises:
        MeasurementFailed: a conversion failed.
    """
    scratch.mkdir()
    return LlamaFiles(
        llama=llama,
        bases={k: convert_base(llama, gguf, k, scratch / f"{k}.gguf") for k in LLAMA_KINDS},
        adapters=convert_adapters(llama, model, adapters, scratch),
    )


def rounds(measured: Measured, print_line: Callable[[str], None]) -> Iterator[Round]:
    """Yield each round, and print each of its figures once it is known.

    Raises:
        MeasurementFailed: a request or a process failed.
        ServerFailed: a server didn't become ready.
    """
    for number in range(measured.sizes.rounds):
        yield _round(measured, number, print_line)


def _round(measured: Measured, number: int, print_line: Callable[[str], None]) -> Round:
    def show(text: str) -> None:
        print_line(f"round {number + 1}: {text}")

    alone_by: dict[str, float] = {}
    mixed_by: dict[str, float] = {}
    rss = {}
    for form in in_turn(number):
        with _lorikeet(measured, form) as serving:
            alone_by[form] = alone(serving, measured.sizes, f"{number}/alone")
            mixed_by[form] = mixed(serving, [*measured.adapters], measured.sizes, f"{number}/mixed")
            rss[form] = psutil.Process(serving.pids["worker"]).memory_info().rss
        show(f"{form} {alone_by[form]:.1f} and {mixed_by[form]:.1f} tokens/s")
    if measured.llama:
        for name, speed in _llama_alone(measured, measured.llama, number):
            alone_by[name] = speed
            show(f"{name} {speed:.1f} tokens/s")
        if number % LLAMA_MIXED_EVERY == 0:
            name, speed = _llama_mixed(measured, measured.llama, number)
            mixed_by[name] = speed
            show(f"{name} with adapters {speed:.1f} tokens/s")
    folder = next(iter(measured.adapters.values())).parent
    engines = measure_engines(number, measured.model, folder, print_line)
    return Round(alone=alone_by, mixed=mixed_by, worker_rss_bytes=rss, engines=engines)


@contextmanager
def _lorikeet(measured: Measured, form: str) -> Iterator[Serving]:
    flags = (*worker_flags(form), NO_PROMPT_LOOKUP)
    with (
        TemporaryDirectory(dir=measured.scratch) as folder,
        lorikeet(measured.model, measured.adapters, Path(folder), flags) as serving,
    ):
        yield serving


def _llama_alone(measured: Measured, files: LlamaFiles, number: int) -> Iterator[tuple[str, float]]:
    for kind, gguf in files.bases.items():
        with (
            TemporaryDirectory(dir=measured.scratch) as folder,
            llama_cpp(files.llama, gguf, {}, 1, Path(folder)) as serving,
        ):
            speed = alone(serving, measured.sizes, f"{number}/alone")
        yield f"llama.cpp {kind}", speed


def _llama_mixed(measured: Measured, files: LlamaFiles, number: int) -> tuple[str, float]:
    gguf, slots = files.bases[LLAMA_MIXED_KIND], measured.sizes.clients
    with (
        TemporaryDirectory(dir=measured.scratch) as folder,
        llama_cpp(files.llama, gguf, files.adapters, slots, Path(folder)) as serving,
    ):
        speed = mixed(serving, [*files.adapters], measured.sizes, f"{number}/mixed")
    return f"llama.cpp {LLAMA_MIXED_KIND}", speed
