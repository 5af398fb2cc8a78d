"""Loads a base model's weights straight to the device that computes with them."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from shared.errors import ModelRejected
from worker.model.loading.bitsandbytes import dequantised_weights
from worker.model.loading.chatglm import find_dialect
from worker.model.loading.conditional import conditional_class
from worker.model.loading.refusals import OTHER_ENGINE, first_line, some_of
from worker.model.loading.stored_weights import served_weights

_NAMES = {
    "awq": "AWQ",
    "bitnet": "BitNet",
    "compressed-tensors": "compressed-tensors",
    "fbgemm_fp8": "FP8",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "hqq": "HQQ",
    "modelopt": "ModelOpt",
    "mxfp4": "MXFP4",
    "torchao": "torchao",
}
"""Names of quantisation methods as their users write them, by `quant_method`."""
_BITSANDBYTES = {"bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"}
_FIELDS = ("quantization_config", "compression_config")


def load_weights(
    source: str, folder: Path, config: Any, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Load the model in `folder` in `dtype`, with eager attention, for inference.

    Each weight is copied from its file to the device once. Weights that bitsandbytes quantised are
    dequantised there.

    Raises:
        ModelRejected: a file is missing or broken, a weight is missing, or the weights are
            quantised by a method that isn't supported.
    """
    quantised = is_quantised(source, config)
    load = _load_plain
    if quantised or find_dialect(folder) is not None:
        load = _load_quantised if quantised else _load_translated
    with _named_errors(source, device), _quiet():
        model, info = load(source, folder, config, _options(dtype, device))
    _check_complete(source, info)
    if quantised:
        # Imported here, so that the GPU benchmark needs only torch and its companions.
        import structlog

        log = structlog.get_logger()
        log.info("base_dequantised", model=source, dtype=str(dtype).removeprefix("torch."))
    eval_model: PreTrainedModel = model.eval().requires_grad_(False)
    return eval_model


def _check_complete(source: str, info: dict[str, Any]) -> None:
    """Refuse files that lack a weight, or have one in a shape unlike the configuration's."""
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


def _load_plain(
    source: str, folder: Path, config: Any, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
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


def _load_quantised(
    source: str, folder: Path, config: Any, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    model_class = conditional_class(config)
    config = without_quantisation(config)
    if model_class is None:
        model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        config = config.get_text_config()
    weights = dequantised_weights(source, folder, options["device_map"][""])
    return _load_lazily(folder, model_class, config, weights, options)


def _load_translated(
    source: str, folder: Path, config: Any, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    dialect = find_dialect(folder)
    assert dialect is not None
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in model_class(config).state_dict().items()}
    weights = served_weights(source, folder, dialect, shapes)
    return _load_lazily(folder, model_class, config, weights, options)


def _load_lazily(
    folder: Path, model_class: Any, config: Any, weights: Mapping[str, Any], options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Load with the model's own class, because the auto class takes no dict of lazy weights."""
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=dict(weights), **options
    )
    with suppress(OSError):  # the model has no generation_config.json
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
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
    """Keep transformers from printing tables of weights. Missing weights become errors anyway."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def is_quantised(source: str, config: Any) -> bool:
    """Return whether bitsandbytes quantised the weights. Raises ModelRejected for other methods."""
    found = [fields for part in _parts(config) for fields in _quantisations(part)]
    for fields in found:
        method = _method(fields)
        if method not in _BITSANDBYTES:
            raise ModelRejected(
                f"--model {source} is quantised with {_NAMES.get(method, method)}, which the "
                f"native engine can't compute: {OTHER_ENGINE}"
            )
    return bool(found)


def without_quantisation(config: Any) -> Any:
    """Return a copy of `config` for a model with dequantised weights."""
    config = copy.deepcopy(config)
    for part in _parts(config):
        for name in _FIELDS:
            if hasattr(part, name):
                delattr(part, name)
    return config


def _parts(config: Any) -> list[Any]:
    text = config.get_text_config()
    return [config] if text is config else [config, text]


def _quantisations(config: Any) -> list[dict[str, Any]]:
    found = [getattr(config, name, None) for name in _FIELDS]
    return [fields if isinstance(fields, dict) else fields.to_dict() for fields in found if fields]


def _method(fields: dict[str, Any]) -> str:
    """Return the quantisation method. Early releases of bitsandbytes didn't write its name."""
    method = fields.get("quant_method")
    if method is None and (fields.get("load_in_4bit") or fields.get("load_in_8bit")):
        return "bitsandbytes"
    return str(getattr(method, "value", method) or "an unknown method")
