"""`make bench`: compares Lorikeet with its peers on the same work."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ops.lab.bench.frame.rounds import Measure, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import Model, Quick, Rounds, model_and_scratch, show, sizes_of
from ops.lab.bench.servers.model_servers import check_vllm, lorikeet
from ops.lab.bench.servers.peers import peft_measure, vllm_measure
from ops.lab.bench.servers.random_adapters import RANKS, make_adapters
from ops.lab.bench.servers.served import scenarios, served
from ops.lab.options import RESULTS, ResultsFolder

LORIKEET, PEFT, VLLM = "Lorikeet", "PEFT", "vLLM"


def comparison(
    model: Model = None,
    vllm: Annotated[
        Path | None,
        typer.Option(help="Virtual environment of vLLM, to measure vLLM too.", metavar="VENV"),
    ] = None,
    rounds: Rounds = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare Lorikeet with PEFT and optionally vLLM on this machine.

    Stop other programs before you start the comparison.

    The commands listed below run other measurements instead of this comparison.
    """
    if vllm:
        check_vllm(vllm)
    sizes = sizes_of(Sizes(rounds=3), rounds, quick=quick)
    clients = [sizes.clients] if quick else [1, 8, sizes.clients]
    with model_and_scratch(model) as (folder, scratch):
        adapters = make_adapters(folder, scratch / "adapters", RANKS[: sizes.adapters])
        start = partial(lorikeet, folder, adapters)
        variants: dict[str, Measure] = {
            PEFT: peft_measure(folder, adapters, clients, sizes),
            LORIKEET: served(start, scenarios(adapters, clients), sizes, scratch),
        }
        if vllm:
            variants[VLLM] = vllm_measure(vllm, folder, adapters, clients, sizes, scratch)
        found = measure_rounds(variants, sizes.rounds)
    pairs = [(LORIKEET, peer) for peer in variants if peer != LORIKEET]
    show(rounds_finding("comparison", found, sizes, pairs), folder.name, results)
