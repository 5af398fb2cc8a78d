"""Command-line options that several measurements share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from shared.errors import SettingsError

RESULTS = Path(__file__).parent / "results"

Model = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the base model. By default the demo model."),
]
Numbers = Annotated[
    str, typer.Option(metavar="N,N", help="Numbers to measure, separated by commas.")
]
ResultsFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder for the JSON file and the plot.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Measure at a tiny size, to check that it works.")
]


def count_option(help_text: str, *, minimum: int = 1) -> Any:
    """Return a command-line option for an integer of at least `minimum`."""
    return typer.Option(min=minimum, metavar="N", help=help_text)


def read_numbers(flag: str, text: str) -> list[int]:
    """Parse positive numbers separated by commas, such as `1,8,32`.

    Raises:
        SettingsError: `text` has a different form.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise SettingsError(f"{flag} {text}: give positive numbers with commas, like 1,8,32")
    return [int(part) for part in parts]
