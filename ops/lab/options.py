"""The folder of the results, and the option that names another one."""

from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path(__file__).parents[1] / "bench" / "results"

ResultsFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder for the JSON file and the plot.")
]
