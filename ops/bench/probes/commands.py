"""The probes as commands of `python -m ops.bench`: each measures one thing."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ops.bench.adapters import MAX_RANK, RANKS, TARGETS, make_adapters
from ops.bench.answers import Answer
from ops.bench.load import send_load
from ops.bench.modules import MeasurementFailed
from ops.bench.options import RESULTS, Model, ResultsFolder, read_numbers
from ops.bench.probes.churn import ChurnShape, churn_finding, measure_churn
from ops.bench.probes.finding import Finding, write_finding
from ops.bench.probes.interference import disturb, interference_finding, streams_of
from ops.bench.probes.memory import measure_memory, memory_finding
from ops.bench.probes.prefix import prefix_finding, shared_prefix
from ops.bench.probes.steps import measure_contexts, measure_lora, measure_steps
from ops.bench.probes.tiers import Budgets, measure_loading, measure_turnover
from ops.bench.servers import lorikeet
from ops.demo.model import demo_model

NO_PREFIX_CACHE = "--no-prefix-cache"
LORA_RANK = 16
GPU_STEPS = 32
"""Decode steps for each figure of `gpu`."""
ATTENTION, MLP = TARGETS[:2], TARGETS[4:]
TURNOVER_RANKS = (4, 8, 16, 24, 32, 64)

probes_app = typer.Typer()
Numbers = Annotated[str, typer.Option(help="numbers, separated by commas")]


@probes_app.command()
def steps(
    clients: Numbers = "1,8,32,64,128", model: Model = None, results: ResultsFolder = RESULTS
) -> None:
    """Measure decode steps, base and 8 adapters, against the GEMM floor."""
    batches = read_numbers("--clients", clients)
    with _scratch(model) as (folder, scratch):
        make_adapters(folder, scratch / "adapters")
        _show(measure_steps(folder, scratch / "adapters", batches), folder, results)


@probes_app.command()
def lora(
    adapters: Numbers = "1,8,32", model: Model = None, results: ResultsFolder = RESULTS
) -> None:
    """Measure the LoRA part of a step, distinct adapters of rank 16, against its bytes."""
    batches = read_numbers("--adapters", adapters)
    with _scratch(model) as (folder, scratch):
        make_adapters(folder, scratch / "adapters", (LORA_RANK,) * max(batches))
        _show(measure_lora(folder, scratch / "adapters", batches), folder, results)


@probes_app.command()
def context(
    tokens: Numbers = "1000,2000,3000,4000,5000,6000,7000",
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure what a token costs after a longer and longer context."""
    with _scratch(model) as (folder, _):
        _show(measure_contexts(folder, read_numbers("--tokens", tokens)), folder, results)


@probes_app.command()
def interference(
    rounds: Annotated[int, typer.Option(min=1, help="long prompts, one after another")] = 5,
    streams: Annotated[int, typer.Option(min=1, help="running streams")] = 8,
    words: Annotated[int, typer.Option(min=1, help="of the long prompt")] = 1500,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure how running streams bear the arrival of a long prompt."""
    with _scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")
        with lorikeet(folder, adapters, scratch) as serving:
            found = [
                asyncio.run(
                    disturb(streams_of(serving.url, list(adapters), streams, f"i/{n}"), words)
                )
                for n in range(rounds + 1)
            ]
        _show(interference_finding(found[1:]), folder, results)  # the first one warms up


@probes_app.command()
def prefix(
    requests: Annotated[int, typer.Option(min=1, help="of one adapter")] = 64,
    words: Annotated[int, typer.Option(min=1, help="that all prompts begin with")] = 800,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure the time to the first token with and without the prefix cache."""
    with _scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")

        def answers(*flags: str) -> list[Answer]:
            with (
                TemporaryDirectory(dir=scratch) as logs,
                lorikeet(folder, adapters, Path(logs), flags) as serving,
            ):
                _send_prefix(serving.url, "a1", requests, words)  # warms up, with another adapter
                return _send_prefix(serving.url, "a0", requests, words)

        finding = prefix_finding(answers(), answers(NO_PREFIX_CACHE), words)
        _show(finding, folder, results)


@probes_app.command()
def memory(
    requests: Annotated[int, typer.Option(min=1, help="of 8 tokens")] = 10_000,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure whether memory grows with the requests answered."""
    with _scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")
        with lorikeet(folder, adapters, scratch) as serving:
            samples = measure_memory(serving.url, list(adapters), serving.pids, requests)
        _show(memory_finding(samples), folder, results)


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
    from ops.bench.gpu import NEW_TOKENS, find_gpu, load_on_gpu, measure_gpu, peft_on
    from ops.bench.probes.gpu_clock import Clock
    from ops.bench.probes.gpu_trials import Sizes

    device, numbers = find_gpu(), read_numbers("--adapters", adapters)
    sizes = Sizes(batch=batch, context=context, adapters=tuple(numbers))
    with _scratch(model) as (folder, scratch):
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
        _write(finding, folder, results)


@probes_app.command()
def loading(
    megabytes: Annotated[int, typer.Option(min=1, help="size of the adapter that loads")] = 100,
    clients: Annotated[int, typer.Option(min=1, help="sequences that decode")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="loads")] = 10,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure decode steps while a large adapter loads, against those without."""
    with _scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")
        rank = max(
            1, round(MAX_RANK * 1e6 * megabytes / _bytes(adapters[f"a{RANKS.index(MAX_RANK)}"]))
        )
        (large,) = make_adapters(folder, scratch / "large", (rank,)).values()
        found = measure_loading(folder, list(adapters.values()), large, clients, rounds)
        _show(found, folder, results)


@probes_app.command()
def turnover(
    loads: Annotated[int, typer.Option(min=1, help="adapters, one after another")] = 1000,
    device: Annotated[int, typer.Option(min=1, help="of rank 16 that the device holds")] = 16,
    host: Annotated[int, typer.Option(min=0, help="of rank 16 that the host holds")] = 64,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure memory while adapters of several ranks and modules load and evict each other."""
    with _scratch(model) as (folder, scratch):
        adapters = [
            made
            for number, modules in enumerate((TARGETS, ATTENTION, MLP))
            for made in make_adapters(
                folder, scratch / str(number), TURNOVER_RANKS, modules
            ).values()
        ]
        size = _bytes(adapters[TURNOVER_RANKS.index(LORA_RANK)])
        budgets = Budgets(device_mb=_mib(device * size), host_mb=_mib(host * size))
        _show(measure_turnover(folder, adapters, loads, budgets), folder, results)


@probes_app.command()
def churn(
    registered: Annotated[int, typer.Option(min=1, help="adapters of rank 16")] = 1000,
    device: Annotated[int, typer.Option(min=1, help="that the device holds")] = 16,
    host: Annotated[int, typer.Option(min=0, help="that the host holds")] = 64,
    requests: Annotated[int, typer.Option(min=1, help="of 16 tokens, by Zipf's law")] = 1000,
    share: Annotated[float, typer.Option(help="of the capacity, in an open loop")] = 0.6,
    folders: Annotated[int, typer.Option(min=1, help="on disk, which names share")] = 64,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure the time to the first token with many more adapters than fit into memory."""
    shape = ChurnShape(
        registered=registered, device=device, host=host, requests=requests, share=share
    )
    with _scratch(model) as (folder, scratch):
        ranks = (LORA_RANK,) * min(folders, registered)
        made = list(make_adapters(folder, scratch / "adapters", ranks).values())
        _show(churn_finding(*measure_churn(folder, made, scratch, shape)), folder, results)


def _bytes(folder: Path) -> int:
    return (folder / "adapter_model.safetensors").stat().st_size


def _mib(num_bytes: int) -> int:
    return -(-num_bytes >> 20)


def _send_prefix(url: str, adapter: str, requests: int, words: int) -> list[Answer]:
    answers = asyncio.run(send_load(shared_prefix(url, adapter, requests, words)))
    if errors := [answer.error for answer in answers if answer.error]:
        raise MeasurementFailed(f"{len(errors)} requests failed: {errors[0]}")
    return answers


@contextmanager
def _scratch(model: Path | None) -> Iterator[tuple[Path, Path]]:
    """The model's folder, and one that is gone after the block."""
    disable_progress_bar()
    with TemporaryDirectory(prefix="lorikeet-bench-") as scratch:
        yield (model or demo_model()).absolute(), Path(scratch)


def _show(finding: Finding, model: Path, results: Path) -> None:
    console = Console()
    for line in finding.says:
        console.print(line, highlight=False, soft_wrap=True)
    _write(finding, model, results)


def _write(finding: Finding, model: Path, results: Path) -> None:
    console = Console()
    for path in write_finding(finding, model.name, results):
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
