"""Loads a base model and checks that it can be served exactly."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, logging

from shared.cache_folder import cache_folder
from worker.kernels.cpu.native import NativeKernels
from worker.kernels.cpu.quantised import QuantisedWeight
from worker.kernels.interface import Kernels
from worker.kernels.pick import pick_kernels
from worker.lora.base.dialect import Dialect
from worker.lora.base.modules import BaseModules, base_modules
from worker.lora.expert_layers import serve_experts
from worker.lora.layers import Siblings, serve_linears, weights_of
from worker.model.adaptable import (
    adaptable_modules,
    by_token_routers,
    check_adaptable,
    check_each_is_called,
    without_unsuitable,
)
from worker.model.attention import (
    AttentionStep,
    LayerProbe,
    attention_step,
    current_recurrent,
)
from worker.model.cache_shape import CacheShape
from worker.model.fuse import fuse, fusible
from worker.model.loading.architecture import longest_context, read_config
from worker.model.loading.chatglm import find_dialect
from worker.model.loading.device import pick_device
from worker.model.loading.end_tokens import end_token_ids
from worker.model.loading.folder import digest_of, find_model, model_name
from worker.model.loading.probe import probe_cache
from worker.model.loading.refusals import refusing_by_name
from worker.model.loading.tokenizer import load_tokenizer
from worker.model.loading.weights import load_weights
from worker.model.module_calls import record_calls, sibling_groups
from worker.model.out_of_memory import return_freed_memory
from worker.model.packed_positions import use_packed_positions
from worker.model.quantise import (
    Quantize,
    lending_weights,
    quantise_linears_,
    quantised_digest,
    quantising_kernels,
)
from worker.model.quantise_on_load import QuantiseOnLoad
from worker.model.recurrent import serve_mixers
from worker.model.verify import Verifier, check_windows

OnStep = Callable[[str, int, int], None]
"""Function that is called to report a step of the work.

Its arguments are the step, the number of parts of the step that are done, and the number of all its
parts, or 0."""
DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A base model on its device, ready to be served."""

    name: str
    """Name of the model's folder or GGUF file, or its hub id."""
    digest: str
    """SHA-256 of the model's files, as 64 hex digits."""
    model: PreTrainedModel
    tokenizer: Any
    config: Any
    dtype: torch.dtype
    device: torch.device
    max_model_len: int
    """Longest context that the model supports, in tokens."""
    eos_ids: frozenset[int]
    """Ids of the tokens that end an answer."""
    cache: CacheShape
    """What is kept of each sequence between steps."""
    kernels: Kernels
    base: BaseModules
    """Modules that adapters may target."""
    weight_bytes: int
    """Memory of the parameters and buffers in bytes, in their packed and quantised form."""
    siblings: list[Siblings]
    """The model's linears, in groups. Each group is computed by one matrix product."""
    fused: list[str]
    """Names of the modules that were replaced with native ones."""


def load_model(
    source: str,
    *,
    dtype: DType = "auto",
    device: str = "auto",
    quantize: Quantize | None = None,
    on_step: OnStep = lambda *_: None,
) -> LoadedModel:
    """Load the model from `source`: a folder, a GGUF file or a hub id. Quantise it to `quantize`.

    `on_step` is called with each step of the work.

    Raises:
        ModelRejected: the model wasn't found, is incomplete, or can't be served exactly.
    """
    if not sys.stderr.isatty():  # progress bars would only clutter a log file
        logging.disable_progress_bar()
    torch_device = pick_device(device)
    folder = find_model(source)
    torch_dtype = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    config = read_config(source, folder)
    kernels = pick_kernels(
        torch_device,
        torch_dtype,
        cache_folder(),
        lambda done, total: on_step("compiling the CPU kernels", done, total),
    )
    on_step("reading the base model", 0, 0)
    on_load = None
    if quantize is not None:
        on_load = QuantiseOnLoad(quantising_kernels(source, kernels), torch_dtype)
    with digest_of(source, folder) as digest:
        model = load_weights(
            source, folder, config, dtype=torch_dtype, device=torch_device, quantise=on_load
        )
        tokenizer = load_tokenizer(source, folder)
        whole_digest = digest.result()
    on_step("checking the base model", 0, 0)
    loaded = prepare_model(
        model,
        tokenizer,
        name=model_name(source, folder),
        digest=whole_digest,
        source=source,
        kernels=kernels,
        quantize=quantize,
        dialect=find_dialect(folder),
        quantised=on_load.weights if on_load else None,
    )
    return_freed_memory()
    return loaded


def prepare_model(
    model: PreTrainedModel,
    tokenizer: Any,
    *,
    name: str,
    digest: str,
    source: str,
    kernels: Kernels | None = None,
    quantize: Quantize | None = None,
    dialect: Dialect | None = None,
    quantised: dict[str, QuantisedWeight] | None = None,
) -> LoadedModel:
    """Prepare a model for serving and check that it still computes the same results.

    The model must have been loaded with eager attention. It is changed in place. `name` is the name
    of its folder or GGUF file, or its hub id. `digest` is the SHA-256 of its files. `source` is the
    value of --model, for error messages. By default, `kernels` are the fastest kernels that this
    machine supports. `dialect` has the names of the model's modules in its checkpoint, if these
    names differ from those in `model`. `quantised` has the weights that were quantised when they
    were read, by the names of their linears. It is empty when the function returns.

    Raises:
        ModelRejected: the model can't be served with the same results.
    """
    with refusing_by_name(source, model):
        kernels = kernels or pick_kernels(model.device, model.dtype, cache_folder())
        config = model.config.get_text_config()
        base = base_modules(model, dialect)
        quantised = {} if quantised is None else quantised
        if quantize is not None:
            chosen = quantising_kernels(source, kernels)
            quantise_linears_(source, model, base, chosen, quantised)
            digest = quantised_digest(digest)
        with lending_weights(model, quantised):
            if quantised:
                check_each_is_called(source, model, base)
            verifier = Verifier(source, model)
            use_packed_positions(model)
            probe, cache = probe_cache(source, model)
            check_windows(source, model, probe)
            serve_mixers(model, current_recurrent)
            serve_experts(model)
            step = verifier.step(kernels, cache)
            base, siblings, fused = _serve(
                source, model, base, kernels, quantised, probe, verifier, step
            )
        return LoadedModel(
            name=name,
            digest=digest,
            model=model,
            tokenizer=tokenizer,
            config=config,
            dtype=model.dtype,
            device=model.device,
            max_model_len=longest_context(config),
            eos_ids=end_token_ids(config, model.generation_config, tokenizer),
            cache=cache,
            kernels=kernels,
            base=base,
            weight_bytes=_weight_bytes(model, siblings),
            siblings=siblings,
            fused=fused,
        )


def _weight_bytes(model: PreTrainedModel, siblings: list[Siblings]) -> int:
    """Return the memory of the model's weights, including weights in packed linears."""
    held = [*model.parameters(), *model.buffers()]
    inside: int = sum(tensor.nbytes for tensor in held if not tensor.is_meta)
    return inside + sum(one.base.packed_bytes for one in siblings)


def _serve(
    source: str,
    model: PreTrainedModel,
    base: BaseModules,
    kernels: Kernels,
    quantised: dict[str, QuantisedWeight],
    probe: LayerProbe,
    verifier: Verifier,
    step: AttentionStep,
) -> tuple[BaseModules, list[Siblings], list[str]]:
    """Replace linears, and modules that can be fused. Check the logits before and after.

    Return the modules that adapters may target, the siblings, and the names of fused modules.
    """
    others = fusible(model) if isinstance(kernels, NativeKernels) else []
    is_quantised = bool(quantised)
    with record_calls(model, {*adaptable_modules(base), *others}) as calls:
        routers = by_token_routers(model, base, verifier.num_tokens, lambda: verifier.check(step))
    base = without_unsuitable(
        base, calls, num_tokens=verifier.num_tokens, num_logits=verifier.num_logits, routers=routers
    )
    check_adaptable(source, model, base)
    inside = [call for call in calls if call.name in base.linears and call.name != base.head]
    heads = [[base.head]] if base.head else []
    siblings = serve_linears(model, [*sibling_groups(model, inside), *heads], kernels, quantised)
    fused = []
    if isinstance(kernels, NativeKernels):
        with attention_step(step):
            fused = fuse(
                model,
                kernels,
                probe,
                [call for call in calls if call.name in set(others)],
                is_quantised=is_quantised,
            )
    verifier.check(step, rounds_inputs=is_quantised)
    verifier.check_continued(step, rounds_inputs=is_quantised)
    return replace(base, weights=weights_of(siblings, base.linears)), siblings, fused
