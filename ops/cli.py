"""The command line `lorikeet`. It prints an expected error as one line without a traceback."""

import signal
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ops.commands import audit, bench, doctor, health, serve, up
from ops.commands.clients import (
    adapter_evaluation,
    adapter_push,
    adapter_versions,
    adapters,
    batch,
    chat,
    eval_demo,
    jobs,
    keys,
    login,
    queue,
    status,
)
from ops.commands.flags import spread_adapters
from ops.help_pages import App
from ops.local.supervisor import EXIT_REFUSED, ChildRefused
from shared.errors import (
    AdapterRejected,
    LorikeetError,
    ModelRejected,
    SettingsError,
    UpstreamChanged,
)

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT
_REFUSALS = (SettingsError, UpstreamChanged, ModelRejected, AdapterRejected, ChildRefused)

app = App(
    help="Serve one base model and any number of its LoRA adapters through one OpenAI-compatible "
    "API.\n\nEvery setting is also an environment variable: LORIKEET_PORT sets --port.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_RUN, _USE = "Run", "Inspect and use"
app.command(rich_help_panel=_RUN)(up.up)
app.command("serve", hidden=True)(up.up)
app.command(rich_help_panel=_RUN)(doctor.doctor)
app.command(rich_help_panel=_RUN)(serve.api)
app.command(rich_help_panel=_RUN)(serve.worker)
app.command(rich_help_panel=_RUN)(serve.control)
app.command(rich_help_panel=_USE)(login.login)
app.command(rich_help_panel=_USE)(login.logout)
app.command(rich_help_panel=_USE)(status.status)
app.command(rich_help_panel=_USE)(chat.chat)
app.command(rich_help_panel=_USE)(batch.batch)
app.command(rich_help_panel=_USE)(queue.queue)
app.command(rich_help_panel=_USE)(health.health)
app.command(rich_help_panel=_USE)(audit.audit)
app.command(rich_help_panel=_USE)(bench.bench)
app.command(rich_help_panel=_USE)(eval_demo.eval_demo)
for command in (adapter_push.push, *adapter_versions.COMMANDS, adapter_evaluation.evaluate):
    adapters.adapters_app.command()(command)
adapters.adapters_app.command("ls", hidden=True)(adapters.list_adapters)
app.add_typer(adapters.adapters_app, name="adapters", rich_help_panel=_USE)
app.add_typer(jobs.jobs_app, name="jobs", rich_help_panel=_USE)
app.add_typer(keys.keys_app, name="keys", rich_help_panel=_USE)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lorikeet {version('lorikeet-serve')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command in `sys.argv`.

    After an expected error, exit with status 2 if settings, a package, a model or an adapter were
    refused, and otherwise with status 1. After Ctrl-C, exit with status 130.
    """
    try:
        app(args=spread_adapters(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except (LorikeetError, ExceptionGroup) as raised:
        error = _expected_error(raised)
        if error is None:
            raise
        Console(stderr=True).print(Text(f"lorikeet: {error}", style="red"), soft_wrap=True)
        sys.exit(EXIT_REFUSED if isinstance(error, _REFUSALS) else EXIT_FAILED)


def _expected_error(raised: Exception) -> LorikeetError | None:
    """Return the first expected error in `raised`; None if `raised` contains an unexpected one."""
    if isinstance(raised, LorikeetError):
        return raised
    if not isinstance(raised, ExceptionGroup):
        return None
    found = [_expected_error(error) for error in raised.exceptions]
    return None if None in found else found[0]


if __name__ == "__main__":
    main()
