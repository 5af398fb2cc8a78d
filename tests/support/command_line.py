"""Lists the commands of `lorikeet`, and runs them in the process of the test."""

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import click
import typer
from typer.testing import CliRunner

from ops import cli


def lorikeet(*words: str, **options: Any) -> str:
    """Run `lorikeet WORDS` and return what it prints on standard output, or raise its error.

    `options` are those of `CliRunner.invoke`.
    """
    result = CliRunner().invoke(cli.app, words, **options)
    if result.exception:
        raise result.exception
    return result.stdout


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """Last line of the error output, which says what went wrong."""
        return self.err.splitlines()[-1] if self.err else ""


def typed(*words: str, stdin: str = "") -> Ended:
    """Run `lorikeet WORDS` as the program does, with its messages about errors.

    Raises whatever the program would end with a traceback for.
    """
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", ["lorikeet", *words]),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return Ended(status, out.getvalue(), err.getvalue())


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the words and the definition of `lorikeet`, of each command and each subcommand."""

    def walk(
        words: tuple[str, ...], command: click.Command
    ) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        yield words, command
        for name, sub in getattr(command, "commands", {}).items():
            yield from walk((*words, name), sub)

    return walk(("lorikeet",), typer.main.get_command(cli.app))
