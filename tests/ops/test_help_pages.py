"""The help pages of all commands, as a terminal shows them."""

import re

import pytest
from command_line import commands, lorikeet

ROW = re.compile(
    r"(?P<flags>-[a-z], )?--[a-z][a-z0-9-]*(/--no-[a-z0-9-]+)?( (?P<value>[A-Z]+))?"
    r"|(?P<argument>[A-Z]+(\.\.\.)?)"
    r"|(?P<command>[a-z-]+)"
)
"""Names in the left column. A value is a word in capitals, and a switch has none."""
USAGE = re.compile(
    r"Usage: lorikeet[a-z -]* \[OPTIONS\]"
    r"(( [A-Z]+| \[[A-Z]+\])(\.\.\.)?)*( COMMAND \[ARGS\]\.\.\.)?"
)


def help_of(words: tuple[str, ...], columns: int) -> list[str]:
    # The runner ignores the variable COLUMNS.
    shown = lorikeet(*words, "--help", terminal_width=columns, prog_name="lorikeet")
    return shown.splitlines()


def names(lines: list[str]) -> list[str]:
    """The left column of all sections. Its rows are indented by two spaces."""
    start = next(index for index, line in enumerate(lines) if line in SECTIONS)
    rows = [line for line in lines[start:] if re.match(r"  \S", line)]
    return [re.split(r"  +", line.strip())[0] for line in rows]


SECTIONS = ("Arguments:", "Options:")


@pytest.mark.parametrize("words", [words[1:] for words, _ in commands()], ids=" ".join)
def test_pages_use_one_notation_fit_into_60_columns_and_cut_nothing(words: tuple[str, ...]) -> None:
    lines, narrow, wide = (help_of(words, columns) for columns in (80, 60, 200))
    assert USAGE.fullmatch(lines[0]), lines[0]
    assert [name for name in names(lines) if not ROW.fullmatch(name)] == []
    assert [line for line in narrow if len(line) > 60 and len(line.split()) > 1] == []
    assert "…" not in "".join(narrow)
    assert "".join("".join(narrow).split()) == "".join("".join(wide).split())


def test_defaults_are_shown() -> None:
    text = " ".join(" ".join(help_of(("bench",), 80)).split())
    assert "--requests N Total number of requests. [default: 64]" in text
    assert "before those of --input. [default: 0]" in text
    assert "no token times are measured. [default: --stream]" in text
    assert "Port to listen on; 0 picks a free port. [default: 23333]" in " ".join(
        " ".join(help_of(("up",), 80)).split()
    )


@pytest.mark.parametrize("words", [("chat",), ("adapters",), ("adapters", "load"), ("eval-demo",)])
def test_clients_name_the_variable_of_the_url(words: tuple[str, ...]) -> None:
    text = " ".join(" ".join(help_of(words, 80)).split())
    assert "By default that in LORIKEET_URL, else http://127.0.0.1:23333." in text
