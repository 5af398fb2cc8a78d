"""Lines of text and times for the terminal."""

from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text


def print_line(line: str) -> None:
    """Print a line as plain text, without markup or wrapping."""
    Console().print(Text(line), soft_wrap=True)


def utc_minutes(ms: int) -> str:
    """Return a Unix time in milliseconds as a date and a time of day in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "minutes")
