"""The commands of `python -m ops.lab.bench`. Without a command, it runs the comparison."""

import sys

import typer

from ops.lab.bench.api_cpu import api_cpu
from ops.lab.bench.comparison import comparison
from ops.lab.bench.int8 import int8
from ops.lab.bench.pairs import pairs
from ops.lab.bench.scale import scale
from ops.lab.bench.speculation import speculation
from shared.errors import LorikeetError

COMPARISON = "comparison"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=False)
for command in (comparison, pairs, int8, speculation, api_cpu, scale):
    app.command()(command)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def gpu(context: typer.Context) -> None:
    """Measure kernels, decode, prefill and sampling on a GPU, and compare with PEFT and vLLM."""
    # Listed for `--help` only: `__main__` runs the command `gpu` without importing this file.
    from ops.lab.bench.gpu.command import main as measure_gpu

    sys.exit(measure_gpu(context.args))


def main() -> None:
    """Run the command that the arguments name."""
    # Flags alone belong to the comparison, but --help lists all commands.
    words = sys.argv[1:]
    is_named = any(not word.startswith("-") for word in words[:1]) or "--help" in words
    try:
        app(words if is_named else [COMPARISON, *words])
    except LorikeetError as error:
        sys.exit(f"bench: {error}")
