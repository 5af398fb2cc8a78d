"""The command of `python -m ops.bench` that measures batches."""

from functools import partial
from typing import Annotated

import typer

from ops.bench.load.lengths import Length
from ops.bench.options import RESULTS, Model, Quick, ResultsFolder, count_option
from ops.bench.probe_run import model_and_scratch, show
from ops.bench.probes.batches.finding import batches_finding
from ops.bench.probes.batches.rounds import Sizes, measure_batches
from ops.bench.random_adapters import QUICK_RANKS, RANKS, make_adapters
from ops.bench.servers import NO_PROMPT_LOOKUP, lorikeet

batches_app = typer.Typer()
NUM_ADAPTERS = 5


@batches_app.command()
def batches(
    clients: Annotated[int, count_option("Clients of the closed loop.")] = 32,
    rounds: Annotated[int, count_option("Rounds of all measurements.")] = 10,
    requests: Annotated[int, count_option("Requests of each load.")] = 256,
    model: Model = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare batches with a closed loop, and other requests beside a batch with those alone."""
    sizes = Sizes(rounds=rounds, clients=clients, requests=requests)
    if quick:
        sizes = Sizes(rounds=rounds, clients=2, requests=8, length=Length(8, 8), probes=2)
    with model_and_scratch(model) as (folder, scratch):
        ranks = QUICK_RANKS if quick else RANKS[:NUM_ADAPTERS]
        adapters = make_adapters(folder, scratch / "adapters", ranks)
        flags = [NO_PROMPT_LOOKUP]
        with lorikeet(folder, adapters, scratch, flags, runs_batches=True) as serving:
            found = list(
                measure_batches(serving, list(adapters), sizes, partial(print, flush=True))
            )
        show(batches_finding(found, sizes, len(adapters)), folder, results)
