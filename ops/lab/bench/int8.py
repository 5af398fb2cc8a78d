"""Compares int8 with bfloat16 and llama.cpp, both in a server and in the engine alone."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ops.demo.weights import gguf_file
from ops.lab.bench.frame.measurement_process import run_module
from ops.lab.bench.frame.rounds import Figures, Measure, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import Model, Quick, Rounds, model_and_scratch, show, sizes_of
from ops.lab.bench.servers.llama_cpp import check_llama_cpp
from ops.lab.bench.servers.model_servers import NO_PROMPT_LOOKUP, lorikeet
from ops.lab.bench.servers.peers import llama_measures
from ops.lab.bench.servers.random_adapters import RANKS, make_adapters
from ops.lab.bench.servers.served import scenarios, served
from ops.lab.options import RESULTS, ResultsFolder
from shared.errors import SettingsError

INT8, BFLOAT16 = "int8", "bfloat16"
FLAGS = {INT8: ("--quantize", INT8), BFLOAT16: ()}
"""Flags of the worker and of the engine's process, by the format of the weights."""


def int8(
    llama: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of llama.cpp's source, to measure llama.cpp too."),
    ] = None,
    gguf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The model for llama.cpp. By default the demo model."),
    ] = None,
    model: Model = None,
    rounds: Rounds = None,
    quick: Quick = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare int8 with bfloat16 and optionally llama.cpp, in a server and in the engine alone."""
    if llama and model and not gguf:
        raise SettingsError(
            f"--model {model}: llama.cpp needs this model in its format; add --gguf"
        )
    source = check_llama_cpp(llama) if llama else None
    sizes = sizes_of(Sizes(requests=32), rounds, quick=quick)
    with model_and_scratch(model) as (folder, scratch), ExitStack() as stack:
        adapters = make_adapters(folder, scratch / "adapters", RANKS[: sizes.adapters])
        variants = {form: _measure_of(form, folder, adapters, sizes, scratch) for form in FLAGS}
        if source:
            base = gguf or stack.enter_context(gguf_file(scratch))
            variants |= llama_measures(source, base, folder, adapters, sizes, scratch)
        found = measure_rounds(variants, sizes.rounds)
        pairs = [(INT8, other) for other in variants if other != INT8]
        show(rounds_finding("int8", found, sizes, pairs), folder.name, results)


def _measure_of(
    form: str, model: Path, adapters: dict[str, Path], sizes: Sizes, scratch: Path
) -> Measure:
    alone, _, _, mixed = scenarios(adapters, [1, sizes.clients])
    start = partial(lorikeet, model, adapters, worker_flags=[NO_PROMPT_LOOKUP, *FLAGS[form]])
    of_server = served(start, [alone, mixed], sizes, scratch)

    def measure(seed: str) -> Figures:
        of_engine = run_module("engine.process", model, scratch / "adapters", *FLAGS[form])
        return {**of_server(seed), **of_engine}

    return measure
