"""Measures the demo's tasks with and without forced tokens and prompt lookup.

The measurement runs the engine without a server.
"""

from ops.lab.bench.frame.measurement_process import run_module
from ops.lab.bench.frame.rounds import Sizes, rounds_finding
from ops.lab.bench.frame.run import Quick, Rounds, model_and_scratch, show, sizes_of
from ops.lab.options import RESULTS, ResultsFolder


def speculation(
    rounds: Rounds = None, quick: Quick = False, results: ResultsFolder = RESULTS
) -> None:
    """Compare the speed of the demo's tasks with and without forced tokens and prompt lookup.

    The measurement runs the engine without a server.
    """
    sizes = sizes_of(Sizes(requests=8, words=96, adapters=2), rounds, quick=quick)
    with model_and_scratch() as (model, _):
        numbers = (sizes.rounds, sizes.clients, sizes.requests, sizes.words)
        found = run_module("engine.speculating", model, *numbers)
    pairs = [("speculating", "plain")]
    show(rounds_finding("speculation", found, sizes, pairs), model.name, results)
