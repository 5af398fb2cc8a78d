"""Shows answers while they arrive: a single answer as text, several answers in columns."""

import asyncio

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.chat.client import Client
from ops.chat.conversation import Conversation, Talk

REFRESHES_PER_S = 8


async def ask(console: Console, client: Client, conversation: Conversation, prompt: str) -> None:
    """Send `prompt` to all selected models and show their answers."""
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
    if talk.error:
        console.print(Text(talk.error, style="red"), soft_wrap=True)


async def _ask_several(console: Console, client: Client, talks: list[Talk], prompt: str) -> None:
    with Live(
        console=console,
        get_renderable=lambda: _columns(talks),
        refresh_per_second=REFRESHES_PER_S,
    ):
        await asyncio.gather(*(talk.ask(client, prompt, lambda _: None) for talk in talks))


def _columns(talks: list[Talk]) -> Table:
    table = Table(expand=True)
    for talk in talks:
        table.add_column(Text(talk.model), ratio=1, overflow="fold")
    table.add_row(*(_cell(talk) for talk in talks))
    return table


def _cell(talk: Talk) -> Text:
    text = _safe(talk.answer)
    if talk.error:
        text.append(f"\n{talk.error}" if talk.answer else talk.error, style="red")
    return text


def _safe(text: str) -> Text:
    """Replace escape characters in `text`, so that an answer can't control the terminal."""
    return Text(text.replace("\x1b", "␛"))
