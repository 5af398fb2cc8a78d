"""Help pages of the command line, in one notation, and wrapped so that no text is cut off.

Values are written in capitals. An argument in brackets may be left out, and one with dots may be
repeated. A switch has no value. If a command has hidden options, `--help` shows how many there are,
and `--help-all` shows them, too.
"""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

MAX_NAME_WIDTH = 30
"""Maximum width of the names' column. The text of a longer name begins on the next line."""
GAP = "  "
ARGUMENTS, OPTIONS, COMMANDS = "Arguments", "Options", "Commands"
HELP_ALL = "--help-all"
CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])
Row = tuple[str, str]
"""A name, and the text that explains it."""


class _Pages:
    """Writes the parts of a help page, for commands and for groups of commands."""

    def collect_usage_pieces(self: Any, ctx: Any) -> list[str]:
        """Return the words after the command's name in the line `Usage:`."""
        pieces = [_usage(param) for param in self.get_params(ctx) if _is_argument(param)]
        more = [self.subcommand_metavar] if hasattr(self, "subcommand_metavar") else []
        return [self.options_metavar, *pieces, *more]

    def format_options(self: Any, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments, and one for each panel of options and commands."""
        shows_all = ctx.meta.get(HELP_ALL, False)
        shown = [param for param in self.get_params(ctx) if shows_all or not _is_hidden(param)]
        _write(formatter, ((ARGUMENTS, _row(param)) for param in shown if _is_argument(param)))
        options = [(_panel(p, OPTIONS), _row(p)) for p in shown if not _is_argument(p)]
        own_first = sorted(options, key=lambda option: option[0] != OPTIONS)
        _write(formatter, own_first)
        if hasattr(self, "list_commands"):
            commands = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
            listed = [command for command in commands if not _is_hidden(command)]
            _write(formatter, ((_panel(c, COMMANDS), (c.name, _summary(c))) for c in listed))


class HelpCommand(_Pages, TyperCommand):
    """Command whose help page uses the notation of this module."""


class HelpGroup(_Pages, TyperGroup):
    """Group of commands whose help page uses the notation of this module."""


class App(typer.Typer):
    """Typer app whose commands have help pages in the notation of this module."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=HelpGroup, rich_markup_mode=None, **options)

    def command(
        self, name: str | None = None, **options: Any
    ) -> Callable[[CommandFunction], CommandFunction]:
        """Return a decorator that registers a command."""
        return super().command(name, cls=HelpCommand, **options)


def help_all(number: int) -> Any:
    """Return the option `--help-all` of a command with `number` hidden options."""
    return typer.Option(
        HELP_ALL,
        is_eager=True,
        help=f"Show this message with {number} more options and exit.",
        callback=_show_all,
    )


def _show_all(ctx: typer.Context, is_wanted: bool) -> None:
    """Print the help page with the hidden options, and exit."""
    if is_wanted:
        ctx.meta[HELP_ALL] = True
        print(ctx.get_help())
        raise typer.Exit


def _is_hidden(part: Any) -> bool:
    return bool(getattr(part, "hidden", False))


def _write(formatter: Any, rows: Iterable[tuple[str, Row]]) -> None:
    """Write the rows of each title as a section. Sections are in the order of their first rows."""
    sections: dict[str, list[Row]] = {}
    for title, row in rows:
        sections.setdefault(title, []).append(row)
    for title, own in sections.items():
        with formatter.section(title):
            formatter.write("".join(f"{GAP}{line}\n" for line in _lines(own, formatter.width)))


def _lines(rows: Sequence[Row], width: int) -> Iterable[str]:
    """Yield the lines of two columns. No word is broken, because readers copy names of flags."""
    most = min(MAX_NAME_WIDTH, width // 3)
    column = min(max(len(name) for name, _ in rows), most) + len(GAP)
    for name, text in rows:
        lines = textwrap.wrap(
            text, width - column - len(GAP), break_on_hyphens=False, break_long_words=False
        )
        if len(name) + len(GAP) > column:
            yield name
        else:
            first = lines.pop(0) if lines else ""
            yield f"{name:{column}}{first}".rstrip()
        yield from (f"{'':{column}}{line}" for line in lines)


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _panel(shown: Any, otherwise: str) -> str:
    return getattr(shown, "rich_help_panel", None) or otherwise


def _row(param: Any) -> Row:
    text = f"{param.help or ''}{_default(param)}"
    if _is_argument(param):
        return f"{_value(param)}{_dots(param)}", text
    names = "/".join(
        ", ".join(sorted(names, key=len)) for names in (param.opts, param.secondary_opts) if names
    )
    return (names if param.is_flag else f"{names} {_value(param)}"), text


def _value(param: Any) -> str:
    """Return the word that stands for the parameter's value, in capitals."""
    return str(param.metavar or param.name.upper())


def _usage(param: Any) -> str:
    word = _value(param)
    return f"{word if param.required else f'[{word}]'}{_dots(param)}"


def _dots(param: Any) -> str:
    return "" if param.nargs == 1 else "..."


def _default(param: Any) -> str:
    """Return the default as a suffix of the help text. A switch that is off has no suffix."""
    default = param.default
    if not param.show_default or default is None or default is False or default == "":
        return ""
    if default is True:
        default = param.opts[0]
    return f" [default: {getattr(default, 'value', default)}]"


def _summary(command: Any) -> str:
    """Return the first paragraph of a command's help."""
    return " ".join((command.short_help or command.help or "").partition("\n\n")[0].split())
