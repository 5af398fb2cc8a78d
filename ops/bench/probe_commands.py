"""The probes as commands of `python -m ops.bench`: each measures one thing."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from ops.bench.load.answers import Answer
from ops.bench.load.report import answers_of
from ops.bench.make_adapters import make_adapters
from ops.bench.options import RESULTS, Model, ResultsFolder, read_numbers
from ops.bench.probes.interference import disturb, interference_finding, streams_of
from ops.bench.probes.memory import measure_memory, memory_finding
from ops.bench.probes.prefix import prefix_finding, shared_prefix
from ops.bench.probes.schema import measure_schema
from ops.bench.probes.steps import measure_contexts, measure_lora, measure_parts, measure_steps
from ops.bench.scripts.cases import measure_scripts
from ops.bench.scripts.costs import TABLE_WIDTH, costs_finding, costs_table, rows
from ops.bench.scripts.large_pool import Sizes
from ops.bench.servers import lorikeet
from ops.bench.show_finding import Numbers, model_and_scratch, show, write
from ops.local.embedded_redis import start_redis

NO_MODEL = Path("none")
NO_PREFIX_CACHE = "--no-prefix-cache"
LORA_RANK = 16
GPU_STEPS = 32
"""Decode steps for each figure of `gpu`."""

probes_app = typer.Typer()


@probes_app.command()
def steps(
    clients: Numbers = "1,8,32,64,128", model: Model = None, results: ResultsFolder = RESULTS
) -> None:
    """Measure decode steps, base and 8 adapters, against the GEMM floor."""
    batches = read_numbers("--clients", clients)
    with model_and_scratch(model) as (folder, scratch):
        make_adapters(folder, scratch / "adapters")
        show(measure_steps(folder, scratch / "adapters", batches), folder, results)


@probes_app.command()
def parts(
    clients: Numbers = "1,8,32", model: Model = None, results: ResultsFolder = RESULTS
) -> None:
    """Measure where the time of decode steps goes, base and 8 adapters."""
    batches = read_numbers("--clients", clients)
    with model_and_scratch(model) as (folder, scratch):
        make_adapters(folder, scratch / "adapters")
        show(measure_parts(folder, scratch / "adapters", batches), folder, results)


@probes_app.command()
def lora(
    adapters: Numbers = "1,8,32", model: Model = None, results: ResultsFolder = RESULTS
) -> None:
    """Measure the LoRA part of a step, distinct adapters of rank 16, against its bytes."""
    batches = read_numbers("--adapters", adapters)
    with model_and_scratch(model) as (folder, scratch):
        make_adapters(folder, scratch / "adapters", (LORA_RANK,) * max(batches))
        show(measure_lora(folder, scratch / "adapters", batches), folder, results)


@probes_app.command()
def context(
    tokens: Numbers = "1000,2000,3000,4000,5000,6000,7000",
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure what a token costs after a longer and longer context."""
    with model_and_scratch(model) as (folder, _):
        show(measure_contexts(folder, read_numbers("--tokens", tokens)), folder, results)


@probes_app.command()
def interference(
    rounds: Annotated[int, typer.Option(min=1, help="long prompts, one after another")] = 5,
    streams: Annotated[int, typer.Option(min=1, help="running streams")] = 8,
    words: Annotated[int, typer.Option(min=1, help="of the long prompt")] = 1500,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure how running streams bear the arrival of a long prompt."""
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")
        with lorikeet(folder, adapters, scratch) as serving:
            found = [
                asyncio.run(
                    disturb(streams_of(serving.url, list(adapters), streams, f"i/{n}"), words)
                )
                for n in range(rounds + 1)
            ]
        show(interference_finding(found[1:]), folder, results)  # the first one warms up


@probes_app.command()
def prefix(
    requests: Annotated[int, typer.Option(min=1, help="of one adapter")] = 64,
    words: Annotated[int, typer.Option(min=1, help="that all prompts begin with")] = 800,
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
                # The first warms up, with another adapter.
                answers_of(shared_prefix(serving.url, "a1", requests, words))
                return answers_of(shared_prefix(serving.url, "a0", requests, words))

        finding = prefix_finding(answers(), answers(NO_PREFIX_CACHE), words)
        show(finding, folder, results)


@probes_app.command()
def schema(
    clients: Annotated[int, typer.Option(min=1, help="sequences that decode")] = 16,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure what holding answers to a JSON Schema costs per token."""
    with model_and_scratch(model) as (folder, _):
        show(measure_schema(folder, clients), folder, results)


@probes_app.command()
def memory(
    requests: Annotated[int, typer.Option(min=1, help="of 8 tokens")] = 10_000,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure whether memory grows with the requests answered."""
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")
        with lorikeet(folder, adapters, scratch) as serving:
            samples = measure_memory(serving.url, list(adapters), serving.pids, requests)
        show(memory_finding(samples), folder, results)


@probes_app.command()
def scripts(
    workers: Annotated[int, typer.Option(min=16, help="that hold the base model")] = 1000,
    adapters: Annotated[int, typer.Option(min=200, help="registered")] = 10_000,
    waiting: Annotated[int, typer.Option(min=1000, help="jobs, of all adapters")] = 100_000,
    running: Annotated[int, typer.Option(min=64, help="jobs, 64 of a worker")] = 6400,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure commands and Redis' time of each call of a queue script in a large pool."""
    sizes = Sizes(workers=workers, adapters=adapters, waiting=waiting, running=running)
    redis = start_redis(None)
    try:
        calls = asyncio.run(measure_scripts(redis.url, sizes))
    finally:
        redis.stop()
    Console(width=TABLE_WIDTH).print(costs_table(rows(calls)))
    show(costs_finding(calls, sizes), NO_MODEL, results)


@probes_app.command()
def gpu(
    adapters: Numbers = "1,8,64",
    batch: Annotated[int, typer.Option(min=1, help="sequences that decode together")] = 64,
    context: Annotated[int, typer.Option(min=1, help="tokens before each")] = 1024,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure kernels and decode steps on a GPU against their bytes, and PEFT beside them."""
    # Here, as they bring the engine, which no other probe has in this process.
    from ops.bench.gpu.clock import Clock
    from ops.bench.gpu.measure import NEW_TOKENS, find_gpu, load_on_gpu, measure_gpu, peft_on
    from ops.bench.gpu.trials import Sizes

    device, numbers = find_gpu(), read_numbers("--adapters", adapters)
    sizes = Sizes(batch=batch, context=context, adapters=tuple(numbers))
    with model_and_scratch(model) as (folder, scratch):
        finding = measure_gpu(
            load_on_gpu(folder, device),
            folder,
            scratch,
            peft_on(folder, device),
            sizes=sizes,
            clock=Clock(device),
            steps=GPU_STEPS,
            new_tokens=NEW_TOKENS,
            tell=lambda line: print(line, flush=True),
        )
        write(finding, folder, results)
