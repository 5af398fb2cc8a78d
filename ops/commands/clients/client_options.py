"""Options of the commands that are clients of a running server, and the server that they select."""

import os
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ops.local.remembered_servers import UP, RememberedServer, remembered_servers
from ops.terminal import print_error_line
from shared.api_keys import ADMIN, parse_keys
from shared.errors import LorikeetError, SettingsError
from shared.settings import ENV_PREFIX

DEFAULT_URL = "http://127.0.0.1:23333"
"""URL at which `lorikeet up` serves by default."""

URL_VARIABLE = f"{ENV_PREFIX}URL"
KEYS_VARIABLE = f"{ENV_PREFIX}API_KEYS"
URL_HELP = (
    f"URL of the server. By default that in {URL_VARIABLE}, else that of the last `lorikeet login` "
    f"or running `lorikeet up`, else {DEFAULT_URL}."
)
KEY_HELP = (
    f"API key of the server. By default the first key in {KEYS_VARIABLE}, else the remembered one."
)
ADMIN_KEY_HELP = (
    f"API key of the server. By default the first key of the tenant `{ADMIN}` in {KEYS_VARIABLE}, "
    "or its first key, else the remembered one."
)
UrlOption = Annotated[
    str | None, typer.Option("--url", metavar="URL", help=URL_HELP, show_default=False)
]
ApiKeyOption = Annotated[
    str | None, typer.Option("--api-key", metavar="KEY", help=KEY_HELP, show_default=False)
]
AdminKeyOption = Annotated[
    str | None, typer.Option("--api-key", metavar="KEY", help=ADMIN_KEY_HELP, show_default=False)
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for a confirmation.")]


class NotConfirmed(LorikeetError):
    """The user hasn't confirmed a change."""


@dataclass(frozen=True, slots=True)
class ChosenServer:
    """The server that a command uses."""

    url: str
    api_key: str | None = field(repr=False)
    origin: str
    """Where the URL comes from, such as `LORIKEET_URL`."""

    def announce(self) -> None:
        """Print on standard error which pool the command changes."""
        line = f"pool at {self.url} (from {self.origin})"
        Console(stderr=True).print(Text(line, style="dim"), soft_wrap=True)


def chosen_server(
    url: str | None, api_key: str | None, *, prefers_admin: bool = False, changes: bool = False
) -> ChosenServer:
    """Return the server that the options `--url` and `--api-key` or the environment select.

    Without them, it is the server that was remembered last. A remembered key is sent only to its
    own server. With `prefers_admin`, a key of the tenant `admin` is preferred to earlier ones.

    If several `lorikeet up`s run and none is selected, a line on standard error says which one is
    used. A command that `changes` something is refused instead.

    Raises:
        SettingsError: a key is malformed, or the server to change isn't named.
    """
    known = remembered_servers()
    found, origin = _url(url, known, changes=changes)
    keys = parse_keys([api_key or os.environ.get(KEYS_VARIABLE, "")])
    preferred = [key for key in keys if prefers_admin and key.tenant == ADMIN] or list(keys)
    remembered = (each.api_key for each in known if _same(each.url, found) and each.api_key)
    return ChosenServer(found, preferred[0].secret if preferred else next(remembered, None), origin)


def _url(given: str | None, known: list[RememberedServer], *, changes: bool) -> tuple[str, str]:
    """Return the URL of the server, and where it comes from."""
    if given is not None:
        return given, "--url"
    if variable := os.environ.get(URL_VARIABLE):
        return variable, URL_VARIABLE
    if not known:
        return DEFAULT_URL, "the default"
    if known[0].origin == UP:
        _report_several([each.url for each in known if each.origin == UP], changes=changes)
    return known[0].url, f"`{known[0].origin}`"


def _report_several(urls: list[str], *, changes: bool) -> None:
    """Say which of the running servers is used if they are several, or refuse a change.

    Raises:
        SettingsError: there are several, and the command changes something.
    """
    if len(urls) == 1:
        return
    several = f"{len(urls)} servers of yours run, at {', '.join(urls)}"
    if changes:
        raise SettingsError(f"{several}; name the one to change with --url")
    print_error_line(f"{several}; this command uses {urls[0]}")


def _same(one: str, other: str) -> bool:
    """Return whether two base URLs are equal. The ending `/v1` makes no difference."""
    return one.rstrip("/").removesuffix("/v1") == other.rstrip("/").removesuffix("/v1")


def confirm(question: str, *, yes: bool) -> None:
    """Ask a question on standard error, unless `yes` confirms already.

    Raises:
        NotConfirmed: the answer isn't yes, or nobody answers.
    """
    if yes:
        return
    Console(stderr=True).print(Text(f"{question} [y/N] "), end="", soft_wrap=True)
    answer = sys.stdin.readline()
    if not answer:
        Console(stderr=True).print()
        raise NotConfirmed("nothing was changed; --yes confirms without a question")
    if answer.strip().lower() not in ("y", "yes"):
        raise NotConfirmed("nothing was changed")


def check_plot(plot: Path | None) -> None:
    """Check that matplotlib is installed if `--plot` is given.

    Raises:
        SettingsError: it isn't installed.
    """
    if plot and find_spec("matplotlib") is None:
        raise SettingsError(f"--plot {plot}: matplotlib isn't installed: pip install matplotlib")
