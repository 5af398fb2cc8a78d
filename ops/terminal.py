"""Lines of text, tables, times and progress bars for the terminal."""

from collections.abc import Mapping
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text


def print_line(line: str) -> None:
    """Print a line as plain text, without markup or wrapping."""
    Console().print(Text(line), soft_wrap=True)


def print_error_line(line: str) -> None:
    """Print a line as plain text on standard error, without markup or wrapping."""
    Console(stderr=True).print(Text(line), soft_wrap=True)


def table(*columns: str, whole: tuple[str, ...] = ()) -> Table:
    """Return an empty table. Long cells are wrapped, except in the columns `whole`."""
    shown = Table(box=SIMPLE_HEAD, header_style="cyan")
    for column in columns:
        shown.add_column(column, no_wrap=column in whole, overflow="fold")
    return shown


def facts_table(facts: Mapping[str, str | None]) -> Table:
    """Return a table of facts: the names and values of all facts with a value."""
    shown = Table(show_header=False, box=None)
    for name, value in facts.items():
        if value:
            shown.add_row(Text(name, style="cyan"), Text(value, overflow="fold"))
    return shown


def utc_minutes(ms: int) -> str:
    """Return a Unix time in milliseconds as a date and a time of day in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "minutes")


def progress(console: Console) -> Progress:
    """Return a progress bar with a description, the completed steps and the elapsed time."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console)


def byte_progress(console: Console) -> Progress:
    """Return a progress bar of bytes, which disappears at its end. Only terminals show it."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    is_hidden = not console.is_terminal
    return Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=is_hidden
    )
