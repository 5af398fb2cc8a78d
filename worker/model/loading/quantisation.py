"""Reads how a base model's weights are quantised, and refuses unknown methods by name."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import ModelRejected, first_line
from worker.model.loading.bitsandbytes import bitsandbytes_weights
from worker.model.loading.packed import gptq_format, packed_weights
from worker.model.loading.refusals import OTHER_ENGINE
from worker.model.loading.tensor_files import Place, TensorFiles, Weight

_BITSANDBYTES = {"bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit"}
_PACKED = {
    "awq": "AWQ",
    "compressed-tensors": "compressed-tensors",
    "fbgemm_fp8": "FP8",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "mxfp4": "MXFP4",
}
"""Usual names of the quantisation methods that this worker reads, by `quant_method`."""
_OF_VLLM = {
    "auto-round": "AutoRound",
    "modelopt": "ModelOpt",
    "quark": "Quark",
    "torchao": "torchao",
}
"""Usual names of the quantisation methods that only vLLM reads, by `quant_method`."""
_NOWHERE = {
    "bitnet": "BitNet",
    "eetq": "EETQ",
    "higgs": "HIGGS",
    "quanto": "Quanto",
    "spqr": "SpQR",
    "vptq": "VPTQ",
}
"""Usual names of the quantisation methods that neither engine reads, by `quant_method`."""
_FIELDS = ("quantization_config", "compression_config")
_COMPRESSED_FORMATS = {
    *("dense", "float-quantized", "int-quantized", "mixed-precision", "naive-quantized"),
    "pack-quantized",
}
_COMPRESSED_BITS = {"int": (4, 8), "float": (8,)}

Quantisation = Mapping[str, Any]
"""Configuration fields that describe a quantisation. The field `quant_method` is always set."""


def quantisation_of(source: str, config: Any) -> Quantisation | None:
    """Return how the weights are quantised, or None if they aren't.

    Raises:
        ModelRejected: Lorikeet can't dequantise weights of this method or layout.
    """
    found = [fields for part in _parts(config) for fields in _quantisations(part)]
    for fields in found:
        method = fields["quant_method"]
        if method in _BITSANDBYTES:
            continue
        name = _PACKED.get(method)
        layout = _unknown_layout(fields) if name else None
        if name is None or layout is not None:
            raise ModelRejected(
                f"--model {source} is quantised with {_described(method, layout)}, which the "
                f"native engine can't compute: {_advice(method)}"
            )
    return found[0] if found else None


def _described(method: str, layout: str | None) -> str:
    name = {**_PACKED, **_OF_VLLM, **_NOWHERE}.get(method, method)
    return f"{name} ({layout})" if layout else name


def _advice(method: str) -> str:
    if method in _NOWHERE:
        return "use the model that was quantised, and --quantize int8 on a CPU"
    is_known = method in _PACKED or method in _OF_VLLM
    return OTHER_ENGINE if is_known else f"{OTHER_ENGINE} if vLLM knows this method"


def _unknown_layout(fields: Quantisation) -> str | None:
    """Return the layout of the weights if this worker can't read it, and None otherwise.

    The method must be known.
    """
    match fields["quant_method"]:
        case "awq":
            layout = str(fields.get("version") or fields.get("format") or "gemm").lower()
            return layout if layout != "gemm" else None
        case "gptq":
            layout = gptq_format(fields)
            if fields.get("bits") not in (2, 4, 8):
                return f"{fields.get('bits')} bits"
            return layout if layout not in ("gptq", "gptq_v2") else None
        case "compressed-tensors":
            return _unknown_compression(fields)
    return None


def _unknown_compression(fields: Quantisation) -> str | None:
    groups = list((fields.get("config_groups") or {}).values())
    formats = {fields.get("format"), *(group.get("format") for group in groups)} - {None}
    sparsity = (fields.get("sparsity_config") or {}).get("format", "dense")
    if others := sorted({*formats, sparsity} - _COMPRESSED_FORMATS):
        return ", ".join(others)
    if (fields.get("transform_config") or {}).get("config_groups"):
        return "with transforms"
    for weights in (group.get("weights") or {} for group in groups):
        kind, bits = weights.get("type", "int"), weights.get("num_bits", 8)
        if bits not in _COMPRESSED_BITS.get(kind, ()):
            return f"{kind} of {bits} bits"
    return None


def dequantised_weights(
    source: str, folder: Path, quantisation: Quantisation, place: Place
) -> Mapping[str, Weight]:
    """Return the weights of the model in `folder` by name. A weight is dequantised when it is read.

    Raises:
        ModelRejected: the files can't be read, or their tensors don't fit together.
    """
    try:
        files = TensorFiles(folder)
        if quantisation["quant_method"] in _BITSANDBYTES:
            return bitsandbytes_weights(files, place.device)
        return packed_weights(files, quantisation, place)
    except Exception as error:  # a broken file makes the readers raise almost any error
        raise ModelRejected(
            f"--model {source}: its quantised weights can't be read ({first_line(error)}); "
            "download or quantise it again"
        ) from error


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


def _quantisations(config: Any) -> list[Quantisation]:
    found = [getattr(config, name, None) for name in _FIELDS]
    fields = [each if isinstance(each, dict) else each.to_dict() for each in found if each]
    return [{**each, "quant_method": _method(each)} for each in fields]


def _method(fields: dict[str, Any]) -> str:
    """Return the quantisation method. Early releases of bitsandbytes didn't write its name."""
    method = fields.get("quant_method")
    if method is None and (fields.get("load_in_4bit") or fields.get("load_in_8bit")):
        return "bitsandbytes"
    return str(getattr(method, "value", method) or "an unknown method")
