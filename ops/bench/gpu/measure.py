"""`python -m ops.bench gpu`: everything that only a GPU can tell, from one command.

Are the kernels right there, how near are they to reading their bytes once, what does a decode step
cost against the sum of those, what do 1, 8 or 64 adapters add, what would CUDA graphs save, and
what does PEFT do beside it.
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
from ops.bench.make_adapters import make_adapters
from ops.bench.probes.engine import EngineProbe
from ops.bench.probes.finding import Chart, Finding
from ops.bench.subprocesses import MeasurementFailed, run_module
from worker.kernels.interface import Kernels
from worker.kernels.reference import ReferenceKernels
from worker.model.loader import LoadedModel, load_model, pick_device

MAX_DEVIATION = 2e-2
"""Of a kernel's result from torch's in float32, relative to its largest value."""
NEW_TOKENS = 64
"""Of each answer, beside PEFT."""
SEED = "gpu"

Tell = Callable[[str], None]
Peer = Callable[[Path, int, int], float]
"""Tokens per second of PEFT, by the folder of adapters, sequences and tokens of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFigures:
    """One trial of a kernel."""

    name: str
    deviation: float
    """From torch in float32, relative to its largest value."""
    torch_deviation: float
    """The same of torch in the kernel's own dtype."""
    ms: float
    torch_ms: float
    floor_ms: float
    """Of reading and writing its bytes once."""

    @property
    def is_right(self) -> bool:
        """Whether it differs from torch by rounding alone."""
        return self.deviation <= MAX_DEVIATION

    def __str__(self) -> str:
        verdict = "" if self.is_right else "WRONG: "
        return (
            f"{self.name}: {verdict}off by {self.deviation:.1e} (torch's by "
            f"{self.torch_deviation:.1e}), {self.ms:.3f} ms, {self.ms / self.floor_ms:.2f} x its "
            f"bytes (torch {self.torch_ms:.3f} ms)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The same answers by Lorikeet's engine and by PEFT, both offline."""

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
    """The GPU to measure.

    Raises:
        MeasurementFailed: there is none that torch can use.
    """
    if not torch.cuda.is_available():
        raise MeasurementFailed("gpu: there is no GPU that torch can use here, nothing is measured")
    return pick_device("cuda")


def load_on_gpu(model: Path, device: torch.device) -> LoadedModel:
    """The model in bfloat16, with Triton's kernels.

    Raises:
        MeasurementFailed: these kernels can't be used there.
    """
    loaded = load_model(str(model), dtype="bfloat16", device=str(device))
    if loaded.kernels.name == "torch":
        raise MeasurementFailed("gpu: Triton's kernels aren't usable here; the log says why")
    return loaded


def peft_on(model: Path, device: torch.device) -> Peer:
    """PEFT with the model in folder `model`, in a process of its own."""

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
    tell: Tell,
) -> Finding:
    """Measure everything, and tell each figure as it is found.

    Args:
        loaded: the model, on the device, with the kernels to measure.
        model: its folder.
        scratch: a folder for adapters.
        peer: measures PEFT.
        sizes: of the kernels' trials; its batch, context and adapters are those of decode too.
        clock: of the device.
        steps: decode steps for each figure.
        new_tokens: of each answer, beside PEFT.
        tell: prints a line.

    Raises:
        MeasurementFailed: a kernel gave something wrong, after all else was measured.
    """
    bandwidth = clock.bandwidth()
    tell(f"{device_name(loaded.device)}: memory is read at {bandwidth / 1e9:.0f} GB/s")
    kernels = []
    for trial in trials(sizes, loaded.device):
        kernels.append(measure_kernel(trial, loaded.kernels, loaded.dtype, clock, bandwidth))
        tell(str(kernels[-1]))
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
        tell(decode.says(decodes[0]))
    beside = _beside(probe, scratch / "adapters", peer, max(sizes.adapters), new_tokens)
    tell(str(beside))
    if wrong := [kernel.name for kernel in kernels if not kernel.is_right]:
        raise MeasurementFailed(f"gpu: wrong results of {', '.join(wrong)}")
    return gpu_finding(device_name(loaded.device), bandwidth, kernels, decodes, beside)


def measure_kernel(
    trial: Trial, kernels: Kernels, dtype: torch.dtype, clock: Clock, bandwidth: float
) -> KernelFigures:
    """How right and how fast `kernels` are in `trial`, and torch beside them."""
    torch_kernels = ReferenceKernels()
    with torch.inference_mode():
        expected = trial.run(torch_kernels, trial.inputs(torch.float32))
        ours, torchs = trial.inputs(dtype), trial.inputs(dtype)
        return KernelFigures(
            name=trial.name,
            deviation=_deviation(trial.run(kernels, ours), expected),
            torch_deviation=_deviation(trial.run(torch_kernels, torchs), expected),
            ms=clock.ms(lambda: trial.run(kernels, ours)),
            torch_ms=clock.ms(lambda: trial.run(torch_kernels, torchs)),
            floor_ms=1000 * trial.num_bytes * dtype.itemsize / 2 / bandwidth,
        )


def gpu_finding(
    device: str,
    bandwidth: float,
    kernels: Sequence[KernelFigures],
    decodes: Sequence[Decode],
    beside: Beside,
) -> Finding:
    """All figures, those of the decode steps in the plot."""
    figures: dict[str, Any] = {
        "device": device,
        "triton": _triton_version(),
        "bandwidth_bytes_per_s": bandwidth,
        "kernels": [asdict(kernel) for kernel in kernels],
        "decode": [asdict(decode) for decode in decodes],
        "beside_peft": asdict(beside),
    }
    series = {
        "step of the engine": [(d.adapters, d.step_ms) for d in decodes],
        "model alone": [(d.adapters, d.forward_ms) for d in decodes],
        "sum of the floors": [(d.adapters, d.floor_ms) for d in decodes],
    }
    if graphs := [(d.adapters, d.graph_ms) for d in decodes if d.graph_ms is not None]:
        series["model alone, as a CUDA graph"] = graphs
    says = (f"{device}, decode of {decodes[0].batch} sequences", str(beside))
    chart = Chart(x="different adapters in the batch", y="ms", series=series)
    return Finding(name="gpu", figures=figures, says=says, chart=chart)


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _beside(
    probe: EngineProbe, adapters: Path, peer: Peer, sequences: int, new_tokens: int
) -> Beside:
    texts, versions = prompts(SEED, sequences), [a.version for a in probe.adapters]
    probe.generate_s(texts, versions, 2)  # warms up
    seconds = probe.generate_s(prompts(f"{SEED}/2", sequences), versions, new_tokens)
    return Beside(
        sequences=sequences,
        tokens_per_s=sequences * new_tokens / seconds,
        peft_tokens_per_s=peer(adapters, sequences, new_tokens),
    )


def _tokens_needed(sizes: Sizes, steps: int, new_tokens: int) -> int:
    """Room for what is measured: prompts of PEFT's words are shorter than a block a word."""
    decode = sizes.batch * (sizes.context + 2 * steps + 64)
    return max(decode, max(sizes.adapters) * (16 * 128 + new_tokens))


def _deviation(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected).abs().max() / expected.abs().max())


def _triton_version() -> str:
    import triton

    return str(triton.__version__)
