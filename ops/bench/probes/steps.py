"""Probes of decode steps: GEMM floor, LoRA cost, context length, and parts of a step."""

from collections.abc import Sequence
from pathlib import Path

from ops.bench.compare.floor import Floor
from ops.bench.measurement_process import run_module
from ops.bench.probes.engine_process import Context, Parts, Step
from ops.bench.probes.finding import Chart, Finding

ENGINE = "probes.engine_process"


def measure_steps(model: Path, adapters: Path, batches: Sequence[int]) -> Finding:
    """Compare step durations, without and with adapters, with the GEMM floor of each batch size."""
    rows = run_module("compare.floor", str(model), *_flags("batch", batches))
    floors = [Floor(**row) for row in rows]
    found = run_module(ENGINE, "steps", str(model), str(adapters), *_flags("size", batches))
    return steps_finding([Step(**step) for step in found], floors)


def measure_lora(model: Path, adapters: Path, batches: Sequence[int]) -> Finding:
    """Compare the duration of a step's LoRA part with the time to read the LoRA weights."""
    found = run_module(ENGINE, "lora", str(model), str(adapters), *_flags("size", batches))
    return lora_finding([Step(**step) for step in found["steps"]], found["bandwidth"])


def measure_contexts(model: Path, contexts: Sequence[int]) -> Finding:
    """For each context length, compare a step's duration with the time to read keys and values."""
    found = run_module(ENGINE, "contexts", str(model), *_flags("size", contexts))
    return contexts_finding([Context(**c) for c in found["contexts"]], found["bandwidth"])


def measure_parts(model: Path, adapters: Path, batches: Sequence[int]) -> Finding:
    """Measure the parts of a decode step for each batch size, without and with adapters."""
    found = run_module(ENGINE, "parts", str(model), str(adapters), *_flags("size", batches))
    return parts_finding([Parts(**parts) for parts in found])


def parts_finding(found: Sequence[Parts]) -> Finding:
    """Return a finding with one summary line for each element of `found`."""
    says = tuple(
        f"C = {one.batch}, {one.adapters} adapters: {one.step_ms:.1f} ms a step: "
        + ", ".join(f"{label} {ms:.1f}" for label, ms in _labelled(one).items())
        for one in found
    )
    series = {
        label: [(index + 1, _labelled(one)[label]) for index, one in enumerate(found)]
        for label in _labelled(found[0])
    }
    chart = Chart(x="line above", y="ms of a decode step", series=series, joined=False)
    return Finding(name="parts", figures={"parts": found}, says=says, chart=chart)


def _labelled(parts: Parts) -> dict[str, float]:
    return {
        "decoder layers": parts.layers_ms,
        "output head": parts.head_ms,
        "other modules": parts.other_modules_ms,
        "sampling": parts.sampling_ms,
        "making the batch": parts.batch_ms,
        "bookkeeping": parts.bookkeeping_ms,
    }


def steps_finding(steps: Sequence[Step], floors: Sequence[Floor]) -> Finding:
    """Return a finding that compares each step's duration with the GEMM floor of its batch size."""
    says = tuple(
        f"C = {step.batch}: base {step.base_ms:.1f} ms ({step.base_ms / floor.ms:.2f} x the floor),"
        f" adapters {step.adapters_ms:.1f} ms ({step.adapters_ms / floor.ms:.2f} x)"
        for step, floor in zip(steps, floors, strict=True)
    )
    series = {
        "base": [(step.batch, step.base_ms) for step in steps],
        "adapters": [(step.batch, step.adapters_ms) for step in steps],
        "GEMM floor": [(floor.batch, floor.ms) for floor in floors],
    }
    chart = Chart(x="sequences", y="ms of a decode step", series=series)
    return Finding(name="steps", figures={"steps": steps, "floor": floors}, says=says, chart=chart)


def lora_finding(steps: Sequence[Step], bandwidth: float) -> Finding:
    """Return a finding that compares durations of LoRA parts with the time to read LoRA weights.

    The LoRA part of a step is the time that the adapters add to the step. `bandwidth` is in bytes
    per second.
    """
    bytes_ms = [1000 * step.lora_bytes / bandwidth for step in steps]
    says = tuple(
        f"{step.batch} distinct adapters, a sequence each: {step.lora_ms:.2f} ms of a step for "
        f"{step.lora_bytes / 1e6:.0f} MB, {step.lora_ms / floor:.2f} x what reading them takes"
        for step, floor in zip(steps, bytes_ms, strict=True)
    )
    series = {
        "LoRA part of a step": [(step.batch, step.lora_ms) for step in steps],
        f"its bytes at {bandwidth / 1e9:.1f} GB/s": [
            (step.batch, floor) for step, floor in zip(steps, bytes_ms, strict=True)
        ],
    }
    figures = {"steps": steps, "bandwidth_bytes_per_s": bandwidth}
    chart = Chart(x="distinct adapters, a sequence each", y="ms", series=series)
    return Finding(name="lora", figures=figures, says=says, chart=chart)


def contexts_finding(contexts: Sequence[Context], bandwidth: float) -> Finding:
    """Return a finding that compares each step's duration with the explained duration.

    The explained duration is the duration at the shortest context, plus the time to read the
    additional keys and values. `bandwidth` is in bytes per second.
    """
    first = contexts[0]
    explained = [
        first.step_ms + 1000 * (context.kv_bytes - first.kv_bytes) / bandwidth
        for context in contexts
    ]
    says = tuple(
        f"{context.tokens} tokens: a decode step {context.step_ms:.1f} ms, of which its KV bytes "
        f"explain {explained_ms:.1f} ms; prefill {context.prefill_ms_per_token:.2f} ms a token"
        for context, explained_ms in zip(contexts, explained, strict=True)
    )
    tokens = [context.tokens for context in contexts]
    series = {
        "decode step": [(context.tokens, context.step_ms) for context in contexts],
        f"explained by KV bytes at {bandwidth / 1e9:.1f} GB/s": list(
            zip(tokens, explained, strict=True)
        ),
    }
    figures = {"contexts": contexts, "bandwidth_bytes_per_s": bandwidth}
    chart = Chart(x="tokens of context", y="ms", series=series)
    return Finding(name="context", figures=figures, says=says, chart=chart)


def _flags(name: str, numbers: Sequence[int]) -> list[str]:
    return [f"--{name}={number}" for number in numbers]
