"""The command of `python -m ops.bench` that measures the pool beside a busy loop."""

from functools import partial
from typing import Annotated

import typer

from ops.bench.load.lengths import Length
from ops.bench.options import RESULTS, Model, Quick, ResultsFolder, count_option
from ops.bench.probe_run import model_and_scratch, show
from ops.bench.probes.neighbour.finding import is_autogroup_on, neighbour_finding
from ops.bench.probes.neighbour.rounds import Sizes, loop_cores, measure_neighbour
from ops.bench.random_adapters import QUICK_RANKS, RANKS, make_adapters
from ops.bench.servers import NO_PROMPT_LOOKUP, lorikeet
from ops.local.precedence import take_precedence

neighbour_app = typer.Typer()


@neighbour_app.command()
def neighbour(
    clients: Annotated[int, count_option("Clients of the load with adapters.")] = 32,
    rounds: Annotated[int, count_option("Rounds of all three measurements.")] = 10,
    model: Model = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure what a busy loop of lowest priority on one core costs in throughput."""
    loop_cores()
    take_precedence()  # as `lorikeet up` does
    sizes = Sizes(rounds=rounds, clients=clients)
    if quick:
        sizes = Sizes(rounds=rounds, clients=2, requests_per_client=1, length=Length(8, 8))
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters", QUICK_RANKS if quick else RANKS)
        with lorikeet(folder, adapters, scratch, [NO_PROMPT_LOOKUP]) as serving:
            found = list(
                measure_neighbour(serving, list(adapters), sizes, partial(print, flush=True))
            )
        autogroup = is_autogroup_on()
        show(neighbour_finding(found, sizes, len(adapters), autogroup=autogroup), folder, results)
