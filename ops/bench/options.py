"""Options that several measurements take."""

from pathlib import Path
from typing import Annotated

import typer

from shared.errors import SettingsError

RESULTS = Path(__file__).parent / "results"

Model = Annotated[Path | None, typer.Option(help="folder of the base model; by default the demo's")]
ResultsFolder = Annotated[Path, typer.Option(help="where the JSON file and the plot go")]


def read_numbers(flag: str, text: str) -> list[int]:
    """Numbers above 0, as in `1,8,32`.

    Raises:
        SettingsError: there is something else.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise SettingsError(f"{flag} {text}: give numbers like 1,8,32")
    return [int(part) for part in parts]
