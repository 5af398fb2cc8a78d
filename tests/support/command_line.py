"""Runs commands of `lorikeet` in the process of the test."""

from typing import Any

from typer.testing import CliRunner

from ops import cli


def lorikeet(*words: str, **options: Any) -> str:
    """Run `lorikeet WORDS` and return its output, or raise its error. See `CliRunner.invoke`."""
    result = CliRunner().invoke(cli.app, words, **options)
    if result.exception:
        raise result.exception
    return result.output
