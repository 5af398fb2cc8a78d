"""Prints the output of several processes on one terminal."""

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from shared.adapter_flags import LEFT_OUT
from shared.store.views.starts import StartStep

_COLOURS = ("cyan", "magenta", "green", "blue", "bright_cyan", "bright_magenta")
_LEVEL_STYLES = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "red"}


class Lines:
    """Prints lines with their process's name in front. JSON log lines are formatted for reading."""

    def __init__(self, console: Console, names: list[str]) -> None:
        self._console = console
        self._width = max(map(len, names), default=0)
        self._styles = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}

    def show(self, name: str, line: str) -> None:
        """Print one line of process `name`."""
        prefix = Text(f"{name:<{self._width}} | ", style=self._styles.get(name, "bold"))
        self._console.print(prefix + readable(line), soft_wrap=True, highlight=False)


def readable(line: str) -> Text:
    """Format a JSON log line as time, event and fields. Other lines keep their text and colours."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return Text.from_ansi(line)
    if not isinstance(fields, dict) or "event" not in fields:
        return Text(line)
    return _log_line(fields)


def _log_line(fields: dict[str, Any]) -> Text:
    time = str(fields.pop("timestamp", ""))[11:19]
    level = fields.pop("level", "info")
    event, trace = fields.pop("event"), fields.pop("exception", None)
    fields.pop("process", None)
    words = [f"{name}={value}" for name, value in fields.items()]
    text = Text(" ".join([time, event, *words]), style=_LEVEL_STYLES.get(level, ""))
    return text if trace is None else text + Text(f"\n{trace}", style="dim")


class StepBar:
    """Shows what a starting worker does, as a progress bar below the lines on a terminal."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        is_hidden = not console.is_terminal
        self._bars = Progress(*columns, console=console, transient=True, disable=is_hidden)
        self._task = self._bars.add_task("starting", total=None)

    def show(self, step: StartStep | None) -> None:
        """Show a step. None removes the bar."""
        if step is None:
            self._bars.stop()
        else:
            self._bars.start()
            self._bars.update(
                self._task,
                description=f"the worker is {step}",
                completed=step.done,
                total=step.total or None,
            )


class StartOutput:
    """Shows the output of starting processes, and collects the adapters that workers leave out."""

    def __init__(
        self,
        show: Callable[[str, str], None],
        show_step: Callable[[StartStep | None], None] = lambda _: None,
    ) -> None:
        """Create an object that passes each line on to `show`.

        `show_step` shows what a worker does while it starts, until it gets None.
        """
        self._show = show
        self.show_step = show_step
        self._reasons: dict[str, str] = {}

    @property
    def left_out(self) -> Collection[str]:
        """Names of the adapters that workers have left out so far."""
        return self._reasons.keys()

    @property
    def left_out_notes(self) -> list[str]:
        """A line for each adapter that workers have left out so far."""
        return [f"{name} is left out: {reason}" for name, reason in self._reasons.items()]

    def show(self, name: str, line: str) -> None:
        """Show one line of process `name`."""
        if LEFT_OUT in line:
            with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                fields = orjson.loads(line)
                self._reasons[fields["name"]] = fields["reason"]
        self._show(name, line)
