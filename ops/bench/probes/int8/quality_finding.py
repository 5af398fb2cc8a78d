"""Summarises how far the forms of a base model deviate from its float32 form."""

from collections.abc import Sequence

from ops.bench.probes.finding import Chart, Finding
from ops.bench.probes.int8.llama_quality import LlamaQuality
from ops.bench.probes.int8.quality import SCORED, WINDOW, Quality
from ops.bench.probes.int8.text import SOURCE


def quality_finding(found: Sequence[Quality], tokens: int, llama: LlamaQuality | None) -> Finding:
    """Return a finding with one line for each form, and one for llama.cpp if it was measured."""
    divergences = {one.variant: one.deviations[0].kl for one in found if one.deviations}
    if llama:
        divergences[f"llama.cpp {llama.kind}"] = llama.kl
    figures = {
        "text": SOURCE,
        "tokens": tokens,
        "window": WINDOW,
        "scored_per_window": SCORED - 1,
        "variants": found,
        "llama_cpp": llama,
    }
    return Finding(
        name="int8-quality",
        figures=figures,
        says=(
            *(line for one in found for line in one.lines()),
            *([llama.line()] if llama else ()),
        ),
        chart=Chart(
            x="form of the model",
            y="mean KL divergence from float32, nats",
            series={name: [(n, kl)] for n, (name, kl) in enumerate(divergences.items())},
            joined=False,
        ),
    )
