"""Options that the commands of several measurements share."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ops.lab.bench.frame.rounds import QUICK, Sizes

Model = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the base model. By default the demo model."),
]
Rounds = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Rounds, each of which measures everything.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Measure at a tiny size, to check that it works.")
]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Checkout of another commit, to compare with."),
]


def sizes_of(full: Sizes, rounds: int | None, *, quick: bool) -> Sizes:
    """Return the sizes that the options ask for."""
    sizes = QUICK if quick else full
    return replace(sizes, rounds=rounds) if rounds else sizes
