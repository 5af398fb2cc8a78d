"""`lorikeet chat`: a conversation with a running server, streamed."""

import asyncio
import readline  # noqa: F401 -- gives input() line editing and a history
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from shared.api_keys import parse_keys
from shared.errors import LorikeetError

if TYPE_CHECKING:
    from ops.chat.client import Client
    from ops.chat.conversation import Conversation

DEFAULT_URL = "http://127.0.0.1:23333"
HELP = """\
/model NAME     go on with another model; without a name, lists them
/compare A B    from now on ask both, side by side; /model ends it
/reset          forget the conversation
/quit, Ctrl-D   end
Ctrl-C          stop an answer"""


def chat(
    model: Annotated[
        str | None,
        typer.Argument(help="base model or adapter; by default the server's base model"),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="MODEL", help="a second one, to answer side by side")
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, max=2, metavar="N", help="0 always takes the likeliest token")
    ] = 0,
    url: Annotated[str, typer.Option(help="where the server is")] = DEFAULT_URL,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="of the server, by default the first in LORIKEET_API_KEYS",
            envvar="LORIKEET_API_KEYS",
            show_envvar=False,
        ),
    ] = None,
) -> None:
    """Talk to a model or an adapter, or compare two; /help lists the commands."""
    from ops.chat.client import Client
    from ops.chat.conversation import Conversation

    keys = parse_keys([api_key or ""])
    client = Client(url, keys[0].secret if keys else None, temperature)
    names = asyncio.run(client.models())
    chosen = [model or names[0], *([compare] if compare else [])]
    conversation = Conversation(names, chosen)
    console = Console()
    _note(console, f"{' and '.join(chosen)} at {client.url}; /help lists the commands, Ctrl-D ends")
    while (line := _read_line(console)) is not None and line != "/quit":
        try:
            _take(console, client, conversation, line)
        except KeyboardInterrupt:
            _note(console, "(stopped)")
        except LorikeetError as error:
            console.print(Text(str(error), style="red"), soft_wrap=True)


def _take(console: Console, client: "Client", conversation: "Conversation", line: str) -> None:
    """Do what a line says."""
    from ops.chat.conversation import CommandError
    from ops.chat.screen import ask

    match line.split():
        case []:
            pass
        case ["/help"]:
            _note(console, HELP)
        case ["/reset"]:
            conversation.reset()
        case ["/model"]:
            _note(console, ", ".join(conversation.names))
        case ["/model", name]:
            conversation.turn_to([name])
        case ["/compare", one, other]:
            conversation.turn_to([one, other])
        case [word, *_] if word.startswith("/"):
            raise CommandError(f"there is no command {line}; /help lists them")
        case _:
            asyncio.run(ask(console, client, conversation, line))


def _note(console: Console, text: str) -> None:
    console.print(Text(text, style="dim"), soft_wrap=True)


def _read_line(console: Console) -> str | None:
    """The next line; None at the end of the input."""
    try:
        return input("> ").strip()
    except KeyboardInterrupt:
        console.print()
        return ""
    except EOFError:
        console.print()
        return None
