"""Measures Lorikeet's peers: PEFT without a server, and the servers of vLLM and llama.cpp."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ops.lab.bench.frame.measurement_process import run_module
from ops.lab.bench.frame.rounds import Figures, Measure, Sizes
from ops.lab.bench.servers.llama_cpp import LlamaCpp, converted, llama_cpp
from ops.lab.bench.servers.model_servers import vllm
from ops.lab.bench.servers.served import scenarios, served

MIXED_KIND = "Q8_0"
"""Weight format of the base model with which llama.cpp serves adapters.

llama.cpp computes requests of different adapters one after another, so a load with all adapters
takes minutes and isn't repeated for other formats.
"""
MIXED_EVERY = 5
"""llama.cpp is measured with all adapters and clients once in this number of rounds."""


def vllm_measure(
    venv: Path,
    model: Path,
    adapters: Mapping[str, Path],
    clients: list[int],
    sizes: Sizes,
    scratch: Path,
) -> Measure:
    """Return a function that measures the vLLM in `venv`."""
    start = partial(vllm, venv, model, adapters)
    return served(start, scenarios(adapters, clients), sizes, scratch)


def peft_measure(
    model: Path, adapters: Mapping[str, Path], clients: list[int], sizes: Sizes
) -> Measure:
    """Return a function that measures PEFT.

    Each number of clients is measured as a batch with that many sequences, which start together.
    """
    folder = next(iter(adapters.values())).parent
    flags = [f"--sequences={number}" for number in clients]

    def measure(seed: str) -> Figures:
        options = (f"--seed={seed}", f"--words={sizes.words}", *flags)
        speeds = run_module("engine.peft_peer", model, folder, *options)
        labels = {load.clients: load.label for load in scenarios(adapters, clients)}
        return {f"{labels[int(n)]}, tokens/s": speed for n, speed in speeds.items()}

    return measure


def llama_measures(
    llama: LlamaCpp,
    gguf: Path,
    model: Path,
    adapters: Mapping[str, Path],
    sizes: Sizes,
    scratch: Path,
) -> dict[str, Measure]:
    """Return, for each weight format, a function that measures llama.cpp.

    Every function measures one client that uses the base model. In some rounds, the function for
    `MIXED_KIND` also measures all clients with all adapters.
    """
    bases, files = converted(llama, gguf, model, adapters, scratch / "llama")
    alone, mixed = scenarios(adapters, [1])[:1], scenarios(adapters, [sizes.clients])[1:]

    def measure_of(kind: str) -> Measure:
        base = bases[kind]
        of_one = served(partial(llama_cpp, llama, base, {}, 1), alone, sizes, scratch)
        start = partial(llama_cpp, llama, base, files, sizes.clients)
        of_all = served(start, mixed, sizes, scratch)

        def measure(seed: str) -> Figures:
            has_mixed = kind == MIXED_KIND and int(seed.partition("/")[0]) % MIXED_EVERY == 0
            return {**of_one(seed), **(of_all(seed) if has_mixed else {})}

        return measure

    return {f"llama.cpp {kind}": measure_of(kind) for kind in bases}
