"""The command of `python -m ops.bench` that measures the pool beside a busy loop."""

from functools import partial
from typing import Annotated

import typer

from ops.bench.load.lengths import Length
from ops.bench.options import RESULTS, Model, ResultsFolder, count_option
from ops.bench.probe_run import model_and_scratch, show
from ops.bench.probes.neighbour.finding import is_autogroup_on, neighbour_finding
from ops.bench.probes.neighbour.rounds import Sizes, loop_cores, measure_neighbour
from ops.bench.random_adapters import RANKS, make_adapters
from ops.bench.servers import lorikeet
from ops.local.precedence import take_precedence

NO_PROMPT_LOOKUP = "--no-prompt-lookup"
QUICK_RANKS = (8, 16)

neighbour_app = typer.Typer()


@neighbour_app.command()
def neighbour(
    clients: Annotated[int, count_option("Clients of the load with adapters.")] = 32,
    rounds: Annotated[int, count_option("Rounds of all three measurements.")] = 10,
    model: Model = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure at a tiny size, to check that it works.")
    ] = False,
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
        # Greedy answers to random words repeat themselves, so lookup would hide the price of steps.
        with lorikeet(folder, adapters, scratch, [NO_PROMPT_LOOKUP]) as serving:
            found = list(
                measure_neighbour(serving, list(adapters), sizes, partial(print, flush=True))
            )
        autogroup = is_autogroup_on()
        show(neighbour_finding(found, sizes, len(adapters), autogroup=autogroup), folder, results)
