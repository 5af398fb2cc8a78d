"""Loads a base model's weights from files to the device that computes the model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    logging,
)

from shared.errors import ModelRejected, first_line
from worker.model.loading.chatglm import find_dialect
from worker.model.loading.conditional import conditional_class
from worker.model.loading.gguf_file import gguf_weights
from worker.model.loading.quantisation import (
    dequantised_weights,
    quantisation_of,
    without_quantisation,
)
from worker.model.loading.refusals import some_of
from worker.model.loading.stored_weights import served_weights
from worker.model.loading.tensor_files import Place, Weight
from worker.upstream.model_classes import MODEL_FOR_CAUSAL_LM_MAPPING


def load_weights(
    source: str,
    folder: Path,
    config: Any,
    *,
    dtype: torch.dtype,
    device: torch.device,
    quantise: Any = None,
) -> PreTrainedModel:
    """Load the model in `folder` in `dtype`, with eager attention, for inference.

    `folder` may also be a GGUF file. Each weight is copied from its file to the device once.
    Quantised weights are dequantised there, one at a time. `quantise` is a `QuantiseOnLoad` that
    takes over the linears, or None.

    Raises:
        ModelRejected: a file is missing or broken, a weight is missing, or the weights are
            quantised by a method that isn't supported.
    """
    place = Place(dtype, device)
    options = {**_options(dtype, device), "quantization_config": quantise}
    with _named_errors(source, device), _quiet():
        weights = _computed_weights(source, folder, config, place)
        if weights is None:
            model, info = _load_plain(folder, config, options)
        else:
            model, info = _load_computed(folder, config, weights, options)
    _check_complete(source, info)
    if weights is not None and find_dialect(folder) is None:
        # Imported here, so that the GPU benchmark needs only torch and its companions.
        import structlog

        log = structlog.get_logger()
        log.info("base_dequantised", model=source, dtype=str(dtype).removeprefix("torch."))
    eval_model: PreTrainedModel = model.eval().requires_grad_(False)
    return eval_model


def _computed_weights(
    source: str, folder: Path, config: Any, place: Place
) -> Mapping[str, Weight] | None:
    """Return a model's weights by name, or None if transformers can read them from the folder."""
    if folder.is_file():
        return gguf_weights(source, folder, config, place)
    if (dialect := find_dialect(folder)) is not None:
        with torch.device("meta"):
            state = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).state_dict()
        shapes = {name: value.shape for name, value in state.items()}
        return served_weights(source, folder, dialect, shapes)
    quantisation = quantisation_of(source, config)
    return dequantised_weights(source, folder, quantisation, place) if quantisation else None


def _check_complete(source: str, info: dict[str, Any]) -> None:
    """Raise ModelRejected if the files lack a weight, or a weight has an unexpected shape."""
    for name, found, expected in info["mismatched_keys"]:
        raise ModelRejected(
            f"--model {source}: its weight {name} has the shape {list(found)}, its configuration "
            f"says {list(expected)}; download or save it again"
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelRejected(
            f"--model {source}: its files lack the weights {some_of(missing)}; download or save "
            "it again"
        )


def _options(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "device_map": {"": device},
        "attn_implementation": "eager",
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # _check_complete names them
    }


def _load_plain(folder: Path, config: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    model_class = conditional_class(config) or AutoModelForCausalLM
    loaded: tuple[Any, dict[str, Any]] = model_class.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        **options,
    )
    return loaded


def _load_computed(
    folder: Path, config: Any, weights: Mapping[str, Weight], options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Load a model from `weights`, and return it with transformers' report on missing weights.

    The model's own class is used, because the auto class takes no dict of lazy weights.
    """
    model_class = conditional_class(config)
    config = without_quantisation(config)
    if model_class is None:
        model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        config = config.get_text_config()
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=dict(weights), **options
    )
    if folder.is_dir():
        with suppress(OSError):  # the model has no generation_config.json
            generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
            model.generation_config = generation
    return model, info


@contextmanager
def _named_errors(source: str, device: torch.device) -> Iterator[None]:
    try:
        yield
    except ModelRejected:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelRejected(
            f"--model {source} doesn't fit into the memory of {device} ({first_line(error)}); use "
            "a smaller model, or several GPUs with --engine vllm"
        ) from error
    except Exception as error:  # transformers raises many error types for broken folders
        raise ModelRejected(
            f"--model {source}: AutoModelForCausalLM: {first_line(error)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing tables of missing weights.

    The worker checks for missing weights afterwards.
    """
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
