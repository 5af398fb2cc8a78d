"""`lorikeet chat`: a streamed conversation with a running server."""

import asyncio
import readline  # also adds line editing and history to input()
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from ops.commands.clients.client_options import ApiKeyOption, UrlOption, chosen_server
from shared.errors import LorikeetError

if TYPE_CHECKING:
    from ops.chat.conversation import Client, Conversation

HELP = """\
/model NAME    start anew with a model, or with NAME@DIGEST
/model         list the models
/compare A B   ask up to four models side by side
/compare A     ask the current model and A
/reset         forget the conversation
/quit, Ctrl-D  end the program
Ctrl-C         stop the answer
Tab            complete a command or a name"""
COMMANDS = ("/model", "/compare", "/reset", "/help", "/quit")
MAX_COMPARED = 4
MAX_PROMPT_SHARE = 3
"""The prompt takes at most the terminal's width divided by this number."""


def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Base model or adapter, or one version in full, as NAME@DIGEST. By default the "
            "server's base model.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Second model, which answers side by side."),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0,
            max=2,
            metavar="N",
            help="Sampling temperature from 0 to 2. 0 picks the likeliest tokens.",
        ),
    ] = 0,
    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most tokens of an answer.")
    ] = 1024,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Chat with a model or an adapter, or with several at once. /help lists the chat's commands."""
    from ops.chat.conversation import Client, Conversation

    server = chosen_server(url, api_key)
    client = Client(server.url, server.api_key, temperature=temperature, max_tokens=max_tokens)
    names = client.models()
    chosen = [model or names[0], *([compare] if compare else [])]
    conversation = Conversation(names, chosen)
    console = Console()
    _print_hint(console, f"{_chosen(conversation)} at {client.url}")
    _print_hint(console, "/help lists the commands, Ctrl-D ends")
    with _completion(conversation):
        while (line := _read_line(console, conversation)) is not None and line != "/quit":
            try:
                _handle(console, client, conversation, line)
            except KeyboardInterrupt:
                _print_hint(console, "(stopped)")
            except LorikeetError as error:
                console.print(Text(str(error), style="red"), soft_wrap=True)
                if line.startswith("/"):
                    _print_hint(console, f"the conversation with {_chosen(conversation)} goes on")


@contextmanager
def _completion(conversation: "Conversation") -> Iterator[None]:
    """Let Tab complete the chat's commands and the names of models during the block."""
    before, delimiters = readline.get_completer(), readline.get_completer_delims()
    readline.set_completer(completer(conversation))
    readline.set_completer_delims(" ")  # names have dots, dashes and slashes
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before)
        readline.set_completer_delims(delimiters)


def completer(conversation: "Conversation") -> Callable[[str, int], str | None]:
    """Return a function of readline that completes commands, and names after `/model` and such."""

    def complete(word: str, number: int) -> str | None:
        return _completed(readline.get_line_buffer(), word, conversation.names, number)

    return complete


def _completed(line: str, word: str, names: Sequence[str], number: int) -> str | None:
    """Return the completion of `word`, the last word of `line`, with this number, or None."""
    is_first = line.lstrip() == word
    takes_names = line.lstrip().startswith(("/model ", "/compare "))
    words = COMMANDS if is_first else names if takes_names else ()
    found = [each for each in words if each.startswith(word)]
    return found[number] if number < len(found) else None


def _handle(console: Console, client: "Client", conversation: "Conversation", line: str) -> None:
    """Execute `line` if it is a chat command; otherwise send it as a prompt."""
    from ops.chat.screen import ask

    if line.startswith("/"):
        _execute(console, client, conversation, line)
    elif line:
        asyncio.run(ask(console, client, conversation, line))


def _execute(console: Console, client: "Client", conversation: "Conversation", line: str) -> None:
    from ops.chat.conversation import CommandError

    match line.split():
        case ["/help"]:
            _print_hint(console, HELP)
        case ["/reset"]:
            conversation.reset()
            _print_hint(console, "the conversation is forgotten")
        case ["/model"]:
            conversation.names = client.models()
            _print_hint(console, ", ".join(conversation.names))
        case ["/model", name]:
            _switch(console, client, conversation, [name])
        case ["/model", *_]:
            raise CommandError("/model takes one name; /compare asks several models")
        case ["/compare", other]:
            _switch(console, client, conversation, [conversation.models[0], other])
        case ["/compare", *names] if 1 < len(names) <= MAX_COMPARED:
            _switch(console, client, conversation, names)
        case ["/compare", *_]:
            raise CommandError(f"/compare takes 1 to {MAX_COMPARED} names, such as /compare A B")
        case _:
            raise CommandError(f"there is no command {line}; /help lists the commands")


def _switch(
    console: Console, client: "Client", conversation: "Conversation", names: list[str]
) -> None:
    """Select models and print the selection. Models loaded since the start can be selected too."""
    conversation.names = client.models()
    conversation.switch_to(names)
    _print_hint(console, f"a new conversation with {_chosen(conversation)}")


def _chosen(conversation: "Conversation") -> str:
    return " and ".join(conversation.models)


def _print_hint(console: Console, text: str) -> None:
    console.print(Text(text, style="dim", overflow="fold"))


def _prompt(models: list[str], width: int) -> str:
    """Return the prompt of the input line, which names the current models."""
    names = " + ".join(models)
    most = width // MAX_PROMPT_SHARE
    return f"{names if len(names) <= most else f'{names[: most - 1]}…'}> "


def _read_line(console: Console, conversation: "Conversation") -> str | None:
    """Return the next line without surrounding spaces, '' after Ctrl-C, or None at the end."""
    try:
        return input(_prompt(conversation.models, console.width)).strip()
    except KeyboardInterrupt:
        console.print()
        return ""
    except EOFError:
        console.print()
        return None
