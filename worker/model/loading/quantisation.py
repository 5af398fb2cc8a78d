"""Decides from a model's configuration whether its quantised weights can be dequantised."""

import copy
from typing import Any

from shared.errors import ModelRejected
from worker.model.loading.refusals import OTHER_ENGINE

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
    """Return a copy of `config` for a model whose weights are dequantised."""
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
