"""Prints lines of text to the terminal."""

from rich.console import Console
from rich.text import Text


def print_line(line: str) -> None:
    """Print a line as plain text, without markup or wrapping."""
    Console().print(Text(line), soft_wrap=True)
