"""Commands of `python -m ops.bench` that compare int8 with bfloat16 and with llama.cpp."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ops.bench.compare.llama_cpp import LlamaCpp, check_llama_cpp
from ops.bench.load.lengths import Length
from ops.bench.options import RESULTS, Model, Quick, ResultsFolder, count_option
from ops.bench.probe_run import model_and_scratch, show
from ops.bench.probes.int8.demo_tasks import measure_tasks, tasks_finding
from ops.bench.probes.int8.engines import measure_engines
from ops.bench.probes.int8.finding import int8_finding, level_finding
from ops.bench.probes.int8.llama_quality import measure_llama
from ops.bench.probes.int8.loads import Sizes
from ops.bench.probes.int8.quality import WINDOW, measure_quality, windows_of
from ops.bench.probes.int8.quality_finding import quality_finding
from ops.bench.probes.int8.rounds import Measured, llama_files, rounds
from ops.bench.probes.int8.text import prose
from ops.bench.random_adapters import QUICK_RANKS, RANKS, make_adapters
from ops.demo.weights import gguf_file
from shared.errors import SettingsError
from worker.kernels.cpu.build import compile_library, find_compiler
from worker.kernels.cpu.levels import cpu_flags, usable_levels

int8_app = typer.Typer()

Llama = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of llama.cpp's source, to measure llama.cpp too."),
]
Gguf = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The model for llama.cpp. By default the demo model."),
]
print_now = partial(print, flush=True)
"""Prints a line at once, even to a file, so that an interrupted run leaves its figures."""


def check_llama(source: Path | None, model: Path | None, gguf: Path | None) -> LlamaCpp | None:
    """Return the llama.cpp in the folder `source`, or None if it isn't measured.

    Raises:
        SettingsError: llama.cpp isn't complete there, or lacks the model in its format.
    """
    if source is None:
        return None
    if model and not gguf:
        raise SettingsError(
            f"--model {model}: llama.cpp needs this model in its format; add --gguf"
        )
    return check_llama_cpp(source)


@int8_app.command()
def int8(
    llama: Llama = None,
    gguf: Gguf = None,
    pairs: Annotated[int, count_option("Interleaved rounds.")] = 10,
    model: Model = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare int8 with bfloat16 and optionally llama.cpp, served and in the engine alone."""
    source = check_llama(llama, model, gguf)
    sizes = Sizes(rounds=pairs)
    if quick:
        sizes = Sizes(rounds=pairs, clients=2, requests_alone=1, length=Length(8, 8))
    with model_and_scratch(model) as (folder, scratch), ExitStack() as stack:
        adapters = make_adapters(folder, scratch / "adapters", QUICK_RANKS if quick else RANKS)
        files = None
        if source:
            base = gguf or stack.enter_context(gguf_file(scratch))
            files = llama_files(source, base, folder, adapters, scratch / "llama")
        measured = Measured(
            model=folder,
            adapters=adapters,
            llama=files,
            sizes=sizes,
            scratch=scratch,
        )
        found = list(rounds(measured, print_now))
        show(int8_finding(found, sizes, len(adapters)), folder, results)


@int8_app.command("int8-level")
def int8_level(
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="Level of CPUs, such as avx2.")],
    pairs: Annotated[int, count_option("Interleaved rounds.")] = 10,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare int8 with bfloat16 in the engine alone, with the kernels of a lesser CPU."""
    known = {each.name: each for each in usable_levels(cpu_flags())}
    if level not in known:
        raise SettingsError(f"{level}: this CPU has the levels {', '.join(known)}")
    with model_and_scratch(model) as (folder, scratch):
        kernels = scratch / "kernels"
        compile_library(find_compiler(), known[level].compiler_flags, kernels / f"{level}.so")
        make_adapters(folder, scratch / "adapters", RANKS)
        found = [
            measure_engines(number, folder, scratch / "adapters", print_now, kernels)
            for number in range(pairs)
        ]
        show(level_finding(found, level), folder, results)


@int8_app.command("int8-quality")
def int8_quality(
    llama: Llama = None,
    gguf: Gguf = None,
    tokens: Annotated[int, count_option("Tokens of the text.", minimum=WINDOW)] = 16_384,
    model: Model = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare the predictions of int8, bfloat16 and Q8_0 with those of float32, on a text."""
    source = check_llama(llama, model, gguf)
    text = prose()
    with model_and_scratch(model) as (folder, scratch), ExitStack() as stack:
        windows = windows_of(folder, text, tokens)
        found = measure_quality(folder, windows, print_now)
        beside = None
        if source:
            base = gguf or stack.enter_context(gguf_file(scratch))
            beside = measure_llama(source, base, text, tokens, scratch)
        show(quality_finding(found, tokens, beside), folder, results)


@int8_app.command("int8-demo")
def int8_demo(
    most: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Limit on the examples per task. All by default."),
    ] = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare the right answers of the demo's adapters over an int8 and a bfloat16 base."""
    with model_and_scratch(None) as (folder, scratch):
        show(tasks_finding(measure_tasks(folder, most, scratch, print_now)), folder, results)
