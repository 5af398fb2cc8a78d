"""`python -m ops.bench gpu`: all measurements that need a GPU.

The command checks the kernels' results, and compares each kernel's duration with the time to read
and write the kernel's data once. It then measures decode steps without adapters, and with several
numbers of adapters per batch. Each decode step is measured in the engine, in the model alone, and
as a CUDA graph. Finally, the command compares the throughput of the engine and of PEFT.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ops.bench.compare.peft_peer import prompts
from ops.bench.gpu.clock import Clock
from ops.bench.gpu.decode import Decode, measure_decode
from ops.bench.gpu.trials import Sizes, Trial, trials
from ops.bench.measurement_process import MeasurementFailed, run_module
from ops.bench.probes.engine import EngineProbe
from ops.bench.probes.finding import Chart, Finding
from ops.bench.random_adapters import make_adapters
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels
from worker.model.loader import LoadedModel, load_model, pick_device

MAX_DEVIATION = 2e-2
"""Largest allowed deviation of a kernel's result from torch's float32 result.

The deviation is relative to the largest value in torch's result.
"""
NEW_TOKENS = 64
"""Number of tokens per answer in the comparison with PEFT."""
SEED = "gpu"

Report = Callable[[str], None]
Peer = Callable[[Path, int, int], float]
"""Function that measures PEFT and returns output tokens per second.

Its arguments are the adapter folder, the number of sequences, and the number of new tokens per
sequence.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFigures:
    """Accuracy and duration of a kernel in one trial. A trial calls the kernel on random inputs."""

    name: str
    deviation: float
    """Deviation of the kernel's result from torch's float32 result.

    The deviation is relative to the largest value in torch's result.
    """
    torch_deviation: float
    """Like `deviation`, for the result that torch computes in the kernel's dtype."""
    ms: float
    """Duration of the kernel."""
    torch_ms: float
    """Duration of torch's implementation in the kernel's dtype."""
    floor_ms: float
    """Time to read and write the kernel's data once at the measured memory bandwidth."""

    @property
    def is_right(self) -> bool:
        """Whether `deviation` is at most `MAX_DEVIATION`."""
        return self.deviation <= MAX_DEVIATION

    def __str__(self) -> str:
        verdict = "" if self.is_right else "WRONG: "
        return (
            f"{self.name}: {verdict}off by {self.deviation:.1e} (torch's by "
            f"{self.torch_deviation:.1e}), {self.ms:.3f} ms, {self.ms / self.floor_ms:.2f} x its "
            f"bytes (torch {self.torch_ms:.3f} ms)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftComparison:
    """Throughput of Lorikeet's engine and of PEFT on the same workload. Neither uses a server."""

    sequences: int
    tokens_per_s: float
    peft_tokens_per_s: float

    def __str__(self) -> str:
        ratio = self.tokens_per_s / self.peft_tokens_per_s
        return (
            f"{self.sequences} sequences, an adapter each: {self.tokens_per_s:.0f} tokens/s, PEFT "
            f"{self.peft_tokens_per_s:.0f} ({ratio:.1f} x)"
        )


def find_gpu() -> torch.device:
    """Return the GPU to measure.

    Raises:
        MeasurementFailed: torch finds no usable GPU.
    """
    if not torch.cuda.is_available():
        raise MeasurementFailed("gpu: torch finds no usable GPU, so nothing is measured")
    return pick_device("cuda")


def load_on_gpu(model: Path, device: torch.device) -> LoadedModel:
    """Load the model in bfloat16 with the Triton kernels.

    Raises:
        MeasurementFailed: the Triton kernels are not usable on `device`.
    """
    loaded = load_model(str(model), dtype="bfloat16", device=str(device))
    if loaded.kernels.name == "torch":
        raise MeasurementFailed("gpu: the Triton kernels aren't usable; the log gives the reason")
    return loaded


def peft_on(model: Path, device: torch.device) -> Peer:
    """Return a function that measures PEFT with `model` on `device` in a separate process."""

    def measure(adapters: Path, sequences: int, new_tokens: int) -> float:
        flags = [f"--sequences={sequences}", f"--new-tokens={new_tokens}", f"--seed={SEED}"]
        found = run_module(
            "compare.peft_peer", str(model), str(adapters), *flags, f"--device={device.type}"
        )
        return float(found[str(sequences)])

    return measure


def measure_gpu(
    loaded: LoadedModel,
    model: Path,
    scratch: Path,
    peer: Peer,
    *,
    sizes: Sizes,
    clock: Clock,
    steps: int,
    new_tokens: int,
    report: Report,
) -> Finding:
    """Run all measurements, and report each result as soon as it is available.

    Args:
        loaded: the model on the device, with the kernels to measure.
        model: the model's folder.
        scratch: a folder in which adapters are created.
        peer: function that measures PEFT.
        sizes: sizes of the kernel trials and of the decode steps.
        clock: timer for the device.
        steps: number of decode steps for each figure.
        new_tokens: number of tokens per answer in the comparison with PEFT.
        report: called with one line for each result.

    Raises:
        MeasurementFailed: a kernel's result was wrong. The error is raised after all measurements.
    """
    bandwidth = clock.bandwidth()
    report(f"{device_name(loaded.device)}: memory is read at {bandwidth / 1e9:.0f} GB/s")
    kernels = []
    for trial in trials(sizes, loaded.device):
        kernels.append(measure_kernel(trial, loaded.kernels, loaded.dtype, clock, bandwidth))
        report(str(kernels[-1]))
    folders = make_adapters(model, scratch / "adapters", (sizes.rank,) * max(sizes.adapters))
    probe = EngineProbe(
        loaded,
        folders,
        max_num_seqs=sizes.batch,
        max_tokens=_tokens_needed(sizes, steps, new_tokens),
    )
    decodes = []
    for decode in measure_decode(probe, sizes, clock, bandwidth, steps):
        decodes.append(decode)
        report(decode.summary(decodes[0]))
    comparison = _compare(probe, scratch / "adapters", peer, max(sizes.adapters), new_tokens)
    report(str(comparison))
    if wrong := [kernel.name for kernel in kernels if not kernel.is_right]:
        raise MeasurementFailed(f"gpu: wrong results of {', '.join(wrong)}")
    return gpu_finding(device_name(loaded.device), bandwidth, kernels, decodes, comparison)


def measure_kernel(
    trial: Trial, kernels: Kernels, dtype: torch.dtype, clock: Clock, bandwidth: float
) -> KernelFigures:
    """Measure the accuracy and duration of `kernels` and of torch in one trial."""
    torch_kernels = ReferenceKernels()
    with torch.inference_mode():
        expected = trial.run(torch_kernels, trial.inputs(torch.float32))
        inputs, torch_inputs = trial.inputs(dtype), trial.inputs(dtype)
        return KernelFigures(
            name=trial.name,
            deviation=_deviation(trial.run(kernels, inputs), expected),
            torch_deviation=_deviation(trial.run(torch_kernels, torch_inputs), expected),
            ms=clock.ms(lambda: trial.run(kernels, inputs)),
            torch_ms=clock.ms(lambda: trial.run(torch_kernels, torch_inputs)),
            floor_ms=1000 * trial.num_bytes * dtype.itemsize / 2 / bandwidth,
        )


def gpu_finding(
    device: str,
    bandwidth: float,
    kernels: Sequence[KernelFigures],
    decodes: Sequence[Decode],
    comparison: PeftComparison,
) -> Finding:
    """Return a finding with all figures and a plot of the decode steps."""
    figures: dict[str, Any] = {
        "device": device,
        "triton": _triton_version(),
        "bandwidth_bytes_per_s": bandwidth,
        "kernels": [asdict(kernel) for kernel in kernels],
        "decode": [asdict(decode) for decode in decodes],
        "beside_peft": asdict(comparison),
    }
    series = {
        "step of the engine": [(d.adapters, d.step_ms) for d in decodes],
        "model alone": [(d.adapters, d.forward_ms) for d in decodes],
        "sum of the floors": [(d.adapters, d.floor_ms) for d in decodes],
    }
    if graphs := [(d.adapters, d.graph_ms) for d in decodes if d.graph_ms is not None]:
        series["model alone, as a CUDA graph"] = graphs
    says = (f"{device}, decode of {decodes[0].batch} sequences", str(comparison))
    chart = Chart(x="different adapters in the batch", y="ms", series=series)
    return Finding(name="gpu", figures=figures, says=says, chart=chart)


def device_name(device: torch.device) -> str:
    """Return the GPU's product name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _compare(
    probe: EngineProbe, adapters: Path, peer: Peer, sequences: int, new_tokens: int
) -> PeftComparison:
    texts, versions = prompts(SEED, sequences), [a.version for a in probe.adapters]
    probe.generate_s(texts, versions, 2)  # warm-up
    seconds = probe.generate_s(prompts(f"{SEED}/2", sequences), versions, new_tokens)
    return PeftComparison(
        sequences=sequences,
        tokens_per_s=sequences * new_tokens / seconds,
        peft_tokens_per_s=peer(adapters, sequences, new_tokens),
    )


def _tokens_needed(sizes: Sizes, steps: int, new_tokens: int) -> int:
    """Return the KV cache size, in tokens, that is enough for every measurement.

    The prompts of the comparison with PEFT have 128 words. Each word is assumed to have at most 16
    tokens.
    """
    decode = sizes.batch * (sizes.context + 2 * steps + 64)
    return max(decode, max(sizes.adapters) * (16 * 128 + new_tokens))


def _deviation(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected).abs().max() / expected.abs().max())


def _triton_version() -> str:
    import triton

    return str(triton.__version__)
