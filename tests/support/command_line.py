"""Lists the commands of `lorikeet`, and runs them in the process of the test."""

from collections.abc import Iterator
from typing import Any

import click
import typer
from typer.testing import CliRunner

from ops import cli


def lorikeet(*words: str, **options: Any) -> str:
    """Run `lorikeet WORDS` and return its output, or raise its error. See `CliRunner.invoke`."""
    result = CliRunner().invoke(cli.app, words, **options)
    if result.exception:
        raise result.exception
    return result.output


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the words and the definition of `lorikeet`, of each command and each subcommand."""

    def walk(
        words: tuple[str, ...], command: click.Command
    ) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        yield words, command
        for name, sub in getattr(command, "commands", {}).items():
            yield from walk((*words, name), sub)

    return walk(("lorikeet",), typer.main.get_command(cli.app))
