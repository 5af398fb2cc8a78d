"""Compares a wheel's compiled CPU kernels with kernels that g++ compiles for this machine."""

import zipfile
from pathlib import Path
from typing import Annotated

import typer

from ops.lab.bench.frame.measurement_process import run_module
from ops.lab.bench.frame.rounds import Measure, Sizes, measure_rounds, rounds_finding
from ops.lab.bench.frame.run import Model, Rounds, model_and_scratch, show, sizes_of
from ops.lab.bench.servers.random_adapters import RANKS, make_adapters
from ops.lab.options import RESULTS, ResultsFolder
from shared.errors import SettingsError
from worker.kernels.cpu.build import find_compiler
from worker.kernels.cpu.levels import cpu_flags, usable_levels

ENGINE = "engine.process"
LIBRARIES = "worker/kernels/cpu/prebuilt/"
"""Folder of the compiled libraries in a wheel."""
COMPILED = "g++'s"


def prebuilt(
    wheel: Annotated[Path, typer.Argument(metavar="WHEEL", help="Wheel that `make wheel` built.")],
    model: Model = None,
    rounds: Rounds = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Compare the speed of a wheel's compiled kernels with that of a g++ build."""
    sizes = sizes_of(Sizes(), rounds, quick=False)
    find_compiler()
    with model_and_scratch(model) as (folder, scratch):
        libraries, empty = scratch / "libraries", scratch / "no-libraries"
        empty.mkdir()
        theirs = f"the wheel's {unpack_libraries(wheel, libraries)} kernels"
        make_adapters(folder, scratch / "adapters", RANKS[: sizes.adapters])

        def measure_of(kernels: Path) -> Measure:
            arguments = (folder, scratch / "adapters", "--kernels", kernels)
            return lambda _: run_module(ENGINE, *arguments)

        variants = {theirs: measure_of(libraries), COMPILED: measure_of(empty)}
        found = measure_rounds(variants, sizes.rounds)
        show(rounds_finding("prebuilt", found, sizes, [(theirs, COMPILED)]), folder.name, results)


def unpack_libraries(wheel: Path, folder: Path) -> str:
    """Unpack the wheel's compiled libraries into `folder`.

    Returns:
        The name of the level that this CPU uses.

    Raises:
        SettingsError: the file isn't a wheel with a library for this CPU.
    """
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(LIBRARIES) and name.endswith(".so"):
                    (folder / Path(name).name).write_bytes(archive.read(name))
    except (OSError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{wheel} isn't a wheel: {error}; `make wheel` builds one") from None
    fitting = [level.name for level in usable_levels(cpu_flags())]
    found = [name for name in fitting if (folder / f"{name}.so").is_file()]
    if not found:
        raise SettingsError(f"{wheel} contains no compiled kernels for this CPU")
    return found[0]
