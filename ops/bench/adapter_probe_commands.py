"""Commands of `python -m ops.bench` that measure adapters and their memory."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ops.bench.options import (
    RESULTS,
    Model,
    Numbers,
    ResultsFolder,
    count_option,
    read_numbers,
)
from ops.bench.probe_run import model_and_scratch, show
from ops.bench.probes.churn import ChurnShape, churn_finding, measure_churn
from ops.bench.probes.registered import (
    Registered,
    measure_claims,
    measure_served,
    registered_finding,
)
from ops.bench.probes.tiers import Budgets, measure_loading, measure_turnover
from ops.bench.probes.updates import adapter_bodies, measure_updates, updates_finding
from ops.bench.random_adapters import MAX_RANK, RANKS, TARGETS, make_adapters
from ops.bench.servers import lorikeet
from ops.local.embedded_redis import start_redis

CHURN_RANK = 16
ATTENTION, MLP = TARGETS[:2], TARGETS[4:]
TURNOVER_RANKS = (4, 8, 16, 24, 32, 64)

adapters_app = typer.Typer()


@adapters_app.command()
def loading(
    megabytes: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Size of the adapter that is loaded, in MB.")
    ] = 100,
    clients: Annotated[int, count_option("Sequences that decode.")] = 8,
    rounds: Annotated[int, count_option("Number of loads.")] = 10,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure how much the load of a large adapter slows down concurrent decode steps."""
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")
        rank = _rank_of(megabytes, adapters[f"a{RANKS.index(MAX_RANK)}"])
        (large,) = make_adapters(folder, scratch / "large", (rank,)).values()
        found = measure_loading(folder, list(adapters.values()), large, clients, rounds)
        show(found, folder, results)


@adapters_app.command()
def turnover(
    loads: Annotated[int, count_option("Adapters to load one after another.")] = 1000,
    device: Annotated[int, count_option("Device budget, in adapters of rank 16.")] = 16,
    host: Annotated[int, count_option("Host budget, in adapters of rank 16.", minimum=0)] = 64,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure memory use while adapters of different ranks and target modules evict each other."""
    with model_and_scratch(model) as (folder, scratch):
        adapters = [
            made
            for number, modules in enumerate((TARGETS, ATTENTION, MLP))
            for made in make_adapters(
                folder, scratch / str(number), TURNOVER_RANKS, modules
            ).values()
        ]
        size = _bytes(adapters[TURNOVER_RANKS.index(CHURN_RANK)])
        budgets = Budgets(device_mb=_mib(device * size), host_mb=_mib(host * size))
        show(measure_turnover(folder, adapters, loads, budgets), folder, results)


@adapters_app.command()
def churn(
    registered: Annotated[int, count_option("Registered adapters of rank 16.")] = 1000,
    device: Annotated[int, count_option("Adapters that fit on the device.")] = 16,
    host: Annotated[int, count_option("Adapters that fit in host memory.", minimum=0)] = 64,
    requests: Annotated[int, count_option("Requests of 16 tokens, by Zipf's law.")] = 1000,
    share: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Load of the open loop, as a share of the capacity."),
    ] = 0.6,
    folders: Annotated[int, count_option("Folders on disk, which the names share.")] = 64,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure the time to first token when far more adapters are registered than fit in memory."""
    shape = ChurnShape(
        registered=registered, device=device, host=host, requests=requests, share=share
    )
    with model_and_scratch(model) as (folder, scratch):
        ranks = (CHURN_RANK,) * min(folders, registered)
        made = list(make_adapters(folder, scratch / "adapters", ranks).values())
        show(churn_finding(*measure_churn(folder, made, scratch, shape)), folder, results)


@adapters_app.command()
def registered(
    adapters: Numbers = "10,10000",
    active: Annotated[int, count_option("Adapters that receive requests.")] = 8,
    rounds: Annotated[int, count_option("Rounds; all sizes are measured in each round.")] = 7,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure claim time and throughput with different numbers of registered adapters."""
    sizes = read_numbers("--adapters", adapters)
    with model_and_scratch(model) as (folder, scratch), ExitStack() as stack:
        redis = start_redis(scratch / "redis")
        claims = measure_claims(redis.url, sizes, active, rounds)
        redis.stop()
        made = list(make_adapters(folder, scratch / "adapters").values())
        urls = []
        for size in sizes:
            named = {f"a{n}": made[n % len(made)] for n in range(size)}
            logs = Path(stack.enter_context(TemporaryDirectory(dir=scratch)))
            urls.append(stack.enter_context(lorikeet(folder, named, logs)).url)
        served = measure_served(urls, [f"a{n}" for n in range(active)], rounds)
        found = [
            Registered(adapters=size, claim_us=us, tokens_per_s=rates)
            for size, us, rates in zip(sizes, claims, served, strict=True)
        ]
        show(registered_finding(found, active), folder, results)


@adapters_app.command()
def updates(
    number: Annotated[int, count_option("Updates.", minimum=2)] = 50,
    megabytes: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Size of the adapter, in MB.")
    ] = 5,
    streams: Annotated[int, count_option("Running streams.")] = 16,
    seconds: Annotated[int, count_option("Seconds of streams without updates.")] = 20,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure updates of an adapter by request body while streams run."""
    with model_and_scratch(model) as (folder, scratch):
        (sample,) = make_adapters(folder, scratch / "sample", (MAX_RANK,)).values()
        rank = _rank_of(megabytes, sample)
        (made,) = make_adapters(folder, scratch / "adapter", (rank,)).values()
        config, bodies = adapter_bodies(made, number + 1)
        with lorikeet(folder, {}, scratch) as serving:
            found = asyncio.run(measure_updates(serving, config, bodies, streams, seconds))
        show(updates_finding(found), folder, results)


def _rank_of(megabytes: int, sample: Path) -> int:
    """Return the rank of an adapter of about `megabytes`. `sample` has the rank `MAX_RANK`."""
    return max(1, round(MAX_RANK * 1e6 * megabytes / _bytes(sample)))


def _bytes(folder: Path) -> int:
    return (folder / "adapter_model.safetensors").stat().st_size


def _mib(num_bytes: int) -> int:
    return -(-num_bytes >> 20)
