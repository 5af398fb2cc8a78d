"""Commands of `python -m ops.bench` that run probes. A probe measures one property of Lorikeet."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from ops.bench.load.answers import Answer
from ops.bench.load.report import answers_of
from ops.bench.options import (
    RESULTS,
    Model,
    Numbers,
    ResultsFolder,
    count_option,
    read_numbers,
)
from ops.bench.probe_run import model_and_scratch, show
from ops.bench.probes.finding import Finding
from ops.bench.probes.interference import disturb, interference_finding, streams_of
from ops.bench.probes.memory import measure_memory, memory_finding
from ops.bench.probes.operations.finding import measure_operations
from ops.bench.probes.prebuilt.finding import (
    measure_prebuilt,
    prebuilt_finding,
    unpack_libraries,
)
from ops.bench.probes.prefix import prefix_finding, shared_prefix
from ops.bench.probes.schema import measure_schema
from ops.bench.probes.steps import measure_contexts, measure_lora, measure_parts, measure_steps
from ops.bench.random_adapters import RANKS, make_adapters
from ops.bench.scripts.costs import TABLE_WIDTH, costs_finding, costs_table, rows
from ops.bench.scripts.large_pool import Sizes
from ops.bench.scripts.measure import measure_scripts
from ops.bench.server_processes import Serving
from ops.bench.servers import lorikeet
from ops.local.embedded_redis import start_redis

NO_MODEL = Path("none")
NO_PREFIX_CACHE = "--no-prefix-cache"
LORA_RANK = 16

probes_app = typer.Typer()


@probes_app.command()
def steps(
    clients: Numbers = "1,8,32,64,128", model: Model = None, results: ResultsFolder = RESULTS
) -> None:
    """Compare step durations with the GEMM floor, for the base model and for 8 adapters."""
    batches = read_numbers("--clients", clients)
    _show_with_adapters(partial(measure_steps, batches=batches), RANKS, model, results)


@probes_app.command()
def parts(
    clients: Numbers = "1,8,32", model: Model = None, results: ResultsFolder = RESULTS
) -> None:
    """Measure how long each part of a decode step takes, for the base model and for 8 adapters."""
    batches = read_numbers("--clients", clients)
    _show_with_adapters(partial(measure_parts, batches=batches), RANKS, model, results)


@probes_app.command()
def operations(sequences: Numbers = "32,128", results: ResultsFolder = RESULTS) -> None:
    """Count the operations, reads and uploads of a decode step as a GPU would run it, on a CPU."""
    show(measure_operations(read_numbers("--sequences", sequences)), NO_MODEL, results)


@probes_app.command()
def lora(
    adapters: Numbers = "1,8,32", model: Model = None, results: ResultsFolder = RESULTS
) -> None:
    """Compare the duration of a decode step's LoRA part with the time to read the LoRA weights.

    All adapters have rank 16.
    """
    batches = read_numbers("--adapters", adapters)
    ranks = (LORA_RANK,) * max(batches)
    _show_with_adapters(partial(measure_lora, batches=batches), ranks, model, results)


def _show_with_adapters(
    measure: Callable[[Path, Path], Finding],
    ranks: Sequence[int],
    model: Path | None,
    results: Path,
) -> None:
    """Create adapters with the given `ranks`, call `measure`, and show its finding.

    The arguments of `measure` are the model's folder and the adapters' folder.
    """
    with model_and_scratch(model) as (folder, scratch):
        make_adapters(folder, scratch / "adapters", ranks)
        show(measure(folder, scratch / "adapters"), folder, results)


@probes_app.command()
def context(
    tokens: Numbers = "1000,2000,3000,4000,5000,6000,7000",
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure prefill and decode for contexts of increasing length."""
    with model_and_scratch(model) as (folder, _):
        show(measure_contexts(folder, read_numbers("--tokens", tokens)), folder, results)


@probes_app.command()
def prebuilt(
    wheel: Annotated[Path, typer.Argument(metavar="WHEEL", help="Wheel that `make wheel` built.")],
    pairs: Annotated[int, count_option("Interleaved pairs of processes.", minimum=6)] = 10,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare a wheel's compiled CPU kernels with kernels that g++ compiles for this machine."""
    with model_and_scratch(model) as (folder, scratch):
        level = unpack_libraries(wheel, scratch / "libraries")
        make_adapters(folder, scratch / "adapters")
        found = measure_prebuilt(scratch / "libraries", folder, scratch / "adapters", pairs, print)
        show(prebuilt_finding(found, level), folder, results)


@contextmanager
def _served_adapters(model: Path | None) -> Iterator[tuple[Path, list[str], Serving]]:
    """Serve a model with random adapters.

    Yields the model's folder, the adapter names, and the running server.
    """
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")
        with lorikeet(folder, adapters, scratch) as serving:
            yield folder, list(adapters), serving


@probes_app.command()
def interference(
    rounds: Annotated[int, count_option("Long prompts to send one after another.")] = 5,
    streams: Annotated[int, count_option("Running streams.")] = 8,
    words: Annotated[int, count_option("Words of the long prompt.")] = 1500,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure how running streams slow down when a long prompt arrives."""
    with _served_adapters(model) as (folder, adapters, serving):
        found = [
            asyncio.run(disturb(streams_of(serving.url, adapters, streams, f"i/{n}"), words))
            for n in range(rounds + 1)
        ]
    show(interference_finding(found[1:]), folder, results)  # the first round warms up


@probes_app.command()
def prefix(
    requests: Annotated[int, count_option("Requests to one adapter.")] = 64,
    words: Annotated[int, count_option("Words that all prompts begin with.")] = 800,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure the time to the first token with and without the prefix cache."""
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")

        def answers(*flags: str) -> list[Answer]:
            with (
                TemporaryDirectory(dir=scratch) as logs,
                lorikeet(folder, adapters, Path(logs), flags) as serving,
            ):
                # Warm up with another adapter.
                answers_of(shared_prefix(serving.url, "a1", requests, words))
                return answers_of(shared_prefix(serving.url, "a0", requests, words))

        finding = prefix_finding(answers(), answers(NO_PREFIX_CACHE), words)
        show(finding, folder, results)


@probes_app.command()
def schema(
    clients: Annotated[int, count_option("Sequences that decode.")] = 16,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure the cost per token of answers that must match a JSON Schema."""
    with model_and_scratch(model) as (folder, _):
        show(measure_schema(folder, clients), folder, results)


@probes_app.command()
def memory(
    requests: Annotated[int, count_option("Requests of 8 tokens.")] = 10_000,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure whether memory grows with the number of answered requests."""
    with _served_adapters(model) as (folder, adapters, serving):
        samples = measure_memory(serving.url, adapters, serving.pids, requests)
    show(memory_finding(samples), folder, results)


@probes_app.command()
def scripts(
    workers: Annotated[int, count_option("Workers, all with the base model.", minimum=16)] = 1000,
    adapters: Annotated[int, count_option("Registered adapters.", minimum=200)] = 10_000,
    waiting: Annotated[
        int, count_option("Waiting jobs, spread over all adapters.", minimum=1000)
    ] = 100_000,
    running: Annotated[int, count_option("Running jobs, 64 per worker.", minimum=64)] = 6400,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure how many Redis commands and how much time each queue script takes in a large pool."""
    sizes = Sizes(workers=workers, adapters=adapters, waiting=waiting, running=running)
    redis = start_redis(None)
    try:
        calls = asyncio.run(measure_scripts(redis.url, sizes))
    finally:
        redis.stop()
    Console(width=TABLE_WIDTH).print(costs_table(rows(calls)))
    show(costs_finding(calls, sizes), NO_MODEL, results)


@probes_app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def gpu(context: typer.Context) -> None:
    """Measure kernels, decode, prefill and sampling on a GPU, beside PEFT and vLLM."""
    # For `--help` only: `python -m ops.bench gpu` starts this function without importing this file.
    from ops.bench.gpu.command import main

    sys.exit(main(context.args))
