"""The probes of adapters' memory as commands of `python -m ops.bench`."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ops.bench.make_adapters import MAX_RANK, RANKS, TARGETS, make_adapters
from ops.bench.options import RESULTS, Model, ResultsFolder, read_numbers
from ops.bench.probes.churn import ChurnShape, churn_finding, measure_churn
from ops.bench.probes.registered import (
    Registered,
    measure_claims,
    measure_served,
    registered_finding,
)
from ops.bench.probes.tiers import Budgets, measure_loading, measure_turnover
from ops.bench.servers import lorikeet
from ops.bench.show_finding import Numbers, model_and_scratch, show
from ops.local.embedded_redis import start_redis

CHURN_RANK = 16
ATTENTION, MLP = TARGETS[:2], TARGETS[4:]
TURNOVER_RANKS = (4, 8, 16, 24, 32, 64)

adapters_app = typer.Typer()


@adapters_app.command()
def loading(
    megabytes: Annotated[int, typer.Option(min=1, help="size of the adapter that loads")] = 100,
    clients: Annotated[int, typer.Option(min=1, help="sequences that decode")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="loads")] = 10,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure decode steps while a large adapter loads, against those without."""
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters")
        rank = max(
            1, round(MAX_RANK * 1e6 * megabytes / _bytes(adapters[f"a{RANKS.index(MAX_RANK)}"]))
        )
        (large,) = make_adapters(folder, scratch / "large", (rank,)).values()
        found = measure_loading(folder, list(adapters.values()), large, clients, rounds)
        show(found, folder, results)


@adapters_app.command()
def turnover(
    loads: Annotated[int, typer.Option(min=1, help="adapters, one after another")] = 1000,
    device: Annotated[int, typer.Option(min=1, help="of rank 16 that the device holds")] = 16,
    host: Annotated[int, typer.Option(min=0, help="of rank 16 that the host holds")] = 64,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure memory while adapters of several ranks and modules load and evict each other."""
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
    with model_and_scratch(model) as (folder, scratch):
        ranks = (CHURN_RANK,) * min(folders, registered)
        made = list(make_adapters(folder, scratch / "adapters", ranks).values())
        show(churn_finding(*measure_churn(folder, made, scratch, shape)), folder, results)


@adapters_app.command()
def registered(
    adapters: Numbers = "10,10000",
    active: Annotated[int, typer.Option(min=1, help="of them that are asked for")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="that sizes take in turn")] = 7,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure claims and throughput by how many adapters are registered."""
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


def _bytes(folder: Path) -> int:
    return (folder / "adapter_model.safetensors").stat().st_size


def _mib(num_bytes: int) -> int:
    return -(-num_bytes >> 20)
