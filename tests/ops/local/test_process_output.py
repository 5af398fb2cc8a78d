"""The step of a worker's start below the lines of the processes, on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from ops.local.process_output import StepBar
from shared.store.views.starts import StartStep

STEP = StartStep(step="compiling the CPU kernels", done=2, total=7)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_only_a_terminal_shows_the_step_and_nothing_is_left_of_it(is_terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, force_interactive=is_terminal)
    bar = StepBar(console)
    bar.show(STEP)
    bar.show(None)
    shown = file.getvalue()
    assert ("the worker is compiling the CPU kernels (2 of 7)" in shown) == is_terminal
    if not is_terminal:
        assert shown == ""
