"""Shows answers while they arrive: a single answer as text, several answers in columns."""

import asyncio
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ops.chat.conversation import Client, Conversation, Talk

REFRESHES_PER_S = 8
MIN_COLUMN_WIDTH = 24
"""Minimum width of an answer's column. On narrower screens, answers are shown one below another."""


async def ask(console: Console, client: Client, conversation: Conversation, prompt: str) -> None:
    """Send `prompt` to all selected models and show their answers.

    If the call is cancelled, the parts of the answers received so far stay on the screen.
    """
    with _without_echo():
        if len(conversation.talks) == 1:
            await _ask_one(console, client, conversation.talks[0], prompt)
        else:
            await _ask_several(console, client, conversation.talks, prompt)


async def _ask_one(console: Console, client: Client, talk: Talk, prompt: str) -> None:
    def show(piece: str) -> None:
        console.print(_safe(piece), end="", soft_wrap=True)

    try:
        await talk.ask(client, prompt, show)
    finally:
        if talk.answer:
            console.print()
        for note in talk.notes:
            console.print(Text(note, style="dim"), soft_wrap=True)
    if talk.error:
        console.print(Text(talk.error, style="red"), soft_wrap=True)


async def _ask_several(
    console: Console, client: Client, talks: Sequence[Talk], prompt: str
) -> None:
    """Ask several models. The live view is erased before the final answers are printed."""
    view = Live(
        console=console,
        get_renderable=lambda: _Tail(_answers(talks, console.width)),
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
    )
    try:
        with view:
            await asyncio.gather(*(talk.ask(client, prompt, lambda _: None) for talk in talks))
    finally:
        console.print(_answers(talks, console.width))


@contextmanager
def _without_echo() -> Iterator[None]:
    """Suppress the echo of typed keys such as ^C. The echo would shift the drawn text."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


class _Tail:
    """Shows only the last lines of a text if the text is taller than the screen."""

    def __init__(self, text: RenderableType) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._text, options.update(height=None), pad=False)
        for line in lines[-(console.height - 1) :]:
            yield from line
            yield Segment.line()


def _answers(talks: Sequence[Talk], width: int) -> RenderableType:
    """Return the answers side by side, or below each other if `width` is too small."""
    if width // len(talks) < MIN_COLUMN_WIDTH:
        return Group(*(part for talk in talks for part in _paragraph(talk)))
    table = Table(expand=True, box=SIMPLE_HEAD, header_style="cyan")
    for talk in talks:
        table.add_column(Text(talk.model), ratio=1, overflow="fold")
    table.add_row(*(_cell(talk) for talk in talks))
    return table


def _paragraph(talk: Talk) -> tuple[Text, ...]:
    return Text(f"{talk.model}:", style="cyan"), _cell(talk), Text()


def _cell(talk: Talk) -> Text:
    text = _safe(talk.answer)
    for note in talk.notes:
        text.append(f"\n{note}", style="dim")
    if talk.error:
        text.append(f"\n{talk.error}" if talk.answer else talk.error, style="red")
    return text


def _safe(text: str) -> Text:
    """Replace escape characters in `text`, so that an answer can't control the terminal."""
    return Text(text.replace("\x1b", "␛"))
