"""Probe: a wheel's compiled CPU kernels against kernels that g++ compiles for this machine."""

import statistics
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.bench.measurement_process import run_module
from ops.bench.order_statistics import ratio_text
from ops.bench.probes.finding import Chart, Finding
from shared.errors import SettingsError
from worker.kernels.cpu.build import find_compiler
from worker.kernels.cpu.levels import cpu_flags, usable_levels

PROCESS = "probes.prebuilt.process"
LIBRARIES = "worker/kernels/cpu/prebuilt/"
"""Folder of the compiled libraries in a wheel."""

Milliseconds = Mapping[str, float]
"""Milliseconds by the name of what was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both builds, measured one after the other, each in a process of its own."""

    prebuilt: Milliseconds
    compiled: Milliseconds

    def ratio(self, name: str) -> float:
        """Return the time with the wheel's kernels as a multiple of the other time."""
        return self.prebuilt[name] / self.compiled[name]


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


def measure_prebuilt(
    libraries: Path, model: Path, adapters: Path, pairs: int, report: Callable[[str], None]
) -> list[Pair]:
    """Measure both builds in `pairs` interleaved pairs, and report each one.

    Args:
        libraries: folder with the wheel's libraries.
        model: folder of the base model.
        adapters: folder with one folder for each adapter.
        pairs: number of pairs.
        report: called with one line for each pair.

    Raises:
        NotCompiled: there is no compiler.
        MeasurementFailed: a process failed.
    """
    find_compiler()
    empty = libraries.parent / "no-libraries"
    empty.mkdir()
    found = []
    for number in range(pairs):
        # The order alternates, so that a drift of the machine doesn't favour either build.
        order = [libraries, empty][:: 1 if number % 2 == 0 else -1]
        ms = {folder: run_module(PROCESS, *map(str, (folder, model, adapters))) for folder in order}
        pair = Pair(prebuilt=ms[libraries], compiled=ms[empty])
        report(f"pair {number + 1}: " + ", ".join(f"{pair.ratio(n):.3f}" for n in pair.prebuilt))
        found.append(pair)
    return found


def prebuilt_finding(pairs: Sequence[Pair], level: str) -> Finding:
    """Return a finding with one line for each measured quantity."""
    names = list(pairs[0].prebuilt)
    ratios = {name: [pair.ratio(name) for pair in pairs] for name in names}
    series = {
        name: [(number + 1, ratio) for number, ratio in enumerate(ratios[name])] for name in names
    }
    return Finding(
        name="prebuilt",
        figures={"level": level, "pairs": pairs},
        says=tuple(_line(name, pairs, ratios[name], level) for name in names),
        chart=Chart(x="pair", y="time with the wheel's kernels / with g++'s", series=series),
    )


def _line(name: str, pairs: Sequence[Pair], ratios: Sequence[float], level: str) -> str:
    return (
        f"{name}: the wheel's {level} kernels "
        f"{statistics.median(pair.prebuilt[name] for pair in pairs):.2f} ms, g++'s "
        f"{statistics.median(pair.compiled[name] for pair in pairs):.2f} ms; {ratio_text(ratios)}"
    )
