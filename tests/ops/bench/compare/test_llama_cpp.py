"""llama.cpp as a peer: the folder that it needs, and the figures in its output."""

from pathlib import Path

import pytest

from ops.bench.compare.llama_cpp import check_llama_cpp, run_program
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.int8.llama_quality import LlamaQuality, read_output
from shared.errors import SettingsError

OUTPUT = """
Mean PPL(Q)                   :  38.803061 ±   1.710290
Mean PPL(Q)/PPL(base)         :   1.002137 ±   0.001504
Mean    KLD:   0.004610 ±   0.000085
Maximum KLD:   0.083316
Same top p: 95.196 ± 0.335 %
"""


def test_a_folder_without_the_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--llama .*llama-server doesn't exist.*benchmarks.md"):
        check_llama_cpp(tmp_path)


def test_a_failed_program_is_reported_with_its_output() -> None:
    with pytest.raises(MeasurementFailed, match=r"sh ended with 3:\nno such model"):
        run_program("sh", "-c", "echo no such model; exit 3")


def test_the_divergence_is_read_from_the_output() -> None:
    assert read_output("Q8_0", OUTPUT) == LlamaQuality(
        kind="Q8_0",
        kl=0.00461,
        kl_error=0.000085,
        same_top=pytest.approx(0.95196),
        perplexity_ratio=1.002137,
        ratio_error=0.001504,
    )


def test_output_without_a_figure_is_refused() -> None:
    with pytest.raises(MeasurementFailed, match="printed no Same top p"):
        read_output("Q8_0", OUTPUT.replace("Same top p", "Top"))
