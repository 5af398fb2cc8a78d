"""Compares the predictions of llama.cpp's Q8_0 with those of its float32."""

import re
from dataclasses import dataclass
from pathlib import Path

from ops.bench.compare.llama_cpp import LlamaCpp, convert_base, run_program
from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.int8.quality import WINDOW
from ops.local.cores import usable_cores

KIND = "Q8_0"
REFERENCE = "F32"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaQuality:
    """How far llama.cpp's predictions with a quantised type are from those with float32."""

    kind: str
    kl: float
    """Mean Kullback-Leibler divergence per token, in nats."""
    kl_error: float
    """Standard error of `kl`."""
    same_top: float
    """Share of positions at which both find the same token most probable."""
    perplexity_ratio: float
    ratio_error: float

    def line(self) -> str:
        """Return a summary."""
        return (
            f"llama.cpp {self.kind} from its float32: KL {self.kl:.3g} +- {self.kl_error:.2g}, "
            f"same top token {self.same_top:.2%}, perplexity x {self.perplexity_ratio:.4f} +- "
            f"{self.ratio_error:.4f}"
        )


def measure_llama(
    llama: LlamaCpp, gguf: Path, text: str, tokens: int, scratch: Path
) -> LlamaQuality:
    """Compute the predictions of the model `gguf` for the first `tokens` tokens of the text.

    Raises:
        MeasurementFailed: a program failed, or its output has no figures.
    """
    file, logits = scratch / "text.txt", scratch / "logits"
    file.write_text(text)

    def perplexity(kind: str, *options: str | Path) -> str:
        base = convert_base(llama, gguf, kind, scratch / f"{kind}.gguf")
        common = ("-c", str(WINDOW), "-t", str(usable_cores()), "--kl-divergence-base", logits)
        return run_program(llama.perplexity, "-m", base, *common, *options)

    perplexity(REFERENCE, "-f", file, "--chunks", str(tokens // WINDOW))
    return read_output(KIND, perplexity(KIND, "--kl-divergence"))


def read_output(kind: str, output: str) -> LlamaQuality:
    """Read the figures that `llama-perplexity --kl-divergence` prints for the type `kind`.

    Raises:
        MeasurementFailed: a figure is missing.
    """
    kl, kl_error = _figures("Mean    KLD", output)
    ratio, ratio_error = _figures("Mean PPL(Q)/PPL(base)", output)
    same_percent, _ = _figures("Same top p", output)
    return LlamaQuality(
        kind=kind,
        kl=kl,
        kl_error=kl_error,
        same_top=same_percent / 100,
        perplexity_ratio=ratio,
        ratio_error=ratio_error,
    )


def _figures(name: str, output: str) -> tuple[float, float]:
    """Return the figure `name` and its error."""
    found = re.search(rf"{re.escape(name)}\s*:\s*(\S+)\s*±\s*([\d.]+)", output)
    if found is None:
        raise MeasurementFailed(f"llama-perplexity printed no {name}:\n{output[-2000:]}")
    return float(found[1]), float(found[2])
