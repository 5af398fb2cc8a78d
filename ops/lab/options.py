"""Default folder of the results, and the command-line option that names another folder."""

from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path(__file__).parents[1] / "bench" / "results"

ResultsFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder for the JSON file and the plot.")
]
