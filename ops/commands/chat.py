"""`lorikeet chat`: a streamed conversation with a running server."""

import asyncio
import readline  # noqa: F401 -- adds line editing and history to input()
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from ops.commands.client_options import DEFAULT_URL, ApiKeyOption, UrlOption, first_secret
from shared.errors import LorikeetError

if TYPE_CHECKING:
    from ops.chat.client import Client
    from ops.chat.conversation import Conversation

HELP = """\
/model NAME     switch to another model; without NAME, list the models
/compare A B    ask two models side by side; /model ends the comparison
/reset          forget the conversation
/quit, Ctrl-D   end the program
Ctrl-C          stop the answer"""


def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Base model or adapter. By default the server's base model."
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Second model, which answers side by side."),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0, max=2, metavar="N", help="Sampling temperature; 0 picks the likeliest token."
        ),
    ] = 0,
    url: UrlOption = DEFAULT_URL,
    api_key: ApiKeyOption = None,
) -> None:
    """Chat with a model or an adapter, or with two at once. Type /help for the chat's commands."""
    from ops.chat.client import Client
    from ops.chat.conversation import Conversation

    client = Client(url, first_secret(api_key), temperature)
    names = asyncio.run(client.models())
    chosen = [model or names[0], *([compare] if compare else [])]
    conversation = Conversation(names, chosen)
    console = Console()
    title = f"{' and '.join(chosen)} at {client.url}"
    _print_hint(console, f"{title}; /help lists the commands, Ctrl-D ends")
    while (line := _read_line(console)) is not None and line != "/quit":
        try:
            _handle(console, client, conversation, line)
        except KeyboardInterrupt:
            _print_hint(console, "(stopped)")
        except LorikeetError as error:
            console.print(Text(str(error), style="red"), soft_wrap=True)


def _handle(console: Console, client: "Client", conversation: "Conversation", line: str) -> None:
    """Execute `line` if it is a chat command; otherwise send it as a prompt."""
    from ops.chat.conversation import CommandError
    from ops.chat.screen import ask

    match line.split():
        case []:
            pass
        case ["/help"]:
            _print_hint(console, HELP)
        case ["/reset"]:
            conversation.reset()
        case ["/model"]:
            _print_hint(console, ", ".join(conversation.names))
        case ["/model", name]:
            conversation.switch_to([name])
        case ["/compare", one, other]:
            conversation.switch_to([one, other])
        case [word, *_] if word.startswith("/"):
            raise CommandError(f"there is no command {line}; /help lists the commands")
        case _:
            asyncio.run(ask(console, client, conversation, line))


def _print_hint(console: Console, text: str) -> None:
    console.print(Text(text, style="dim"), soft_wrap=True)


def _read_line(console: Console) -> str | None:
    """Return the next line of input without surrounding spaces, or None at the end of the input.

    Ctrl-C discards the line, and the function returns an empty string.
    """
    try:
        return input("> ").strip()
    except KeyboardInterrupt:
        console.print()
        return ""
    except EOFError:
        console.print()
        return None
