"""Lets transformers quantise linears to int8 while it reads them, one at a time.

Therefore, even a model that fits into memory only when it is quantised can be loaded. transformers
has an API for other quantisation methods, which calls the classes of this module.
"""

from typing import Any

import torch
from torch import Tensor, nn

from worker.kernels.cpu.quantised import QuantisedKernels, QuantisedWeight
from worker.lora.base.linear import can_join
from worker.lora.base.modules import is_expert
from worker.upstream.quantisers import (
    ConversionOps,
    HfQuantizer,
    QuantizationConfigMixin,
    register_quantizer,
)

_METHOD = "lorikeet_int8"


class QuantiseOnLoad(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is untyped
    """Quantises the linears of one model, and stores the quantised weights.

    The linears themselves stay on the meta device. Experts aren't quantised. The output head isn't
    quantised either, because adapters may refer to its original weight.
    """

    def __init__(self, kernels: QuantisedKernels, dtype: torch.dtype) -> None:
        self.quant_method = _METHOD
        self.kernels = kernels
        self.dtype = dtype
        """Dtype of the weights before they are quantised, which is the kernels' dtype."""
        self.weights: dict[str, QuantisedWeight] = {}
        """The quantised weights, by the names of their linears."""

    def __deepcopy__(self, memo: Any) -> "QuantiseOnLoad":
        """Return this object itself, so that transformers' copies of the configuration share it."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of this configuration that transformers may print."""
        return {"quant_method": self.quant_method}


@register_quantizer(_METHOD)
class _Quantiser(HfQuantizer):  # type: ignore[misc]  # transformers is untyped
    """Selects the weights to quantise."""

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        head = model.get_output_embeddings()
        self.names = {
            f"{name}.weight"
            for name, module in model.named_modules()
            if can_join(module) and module is not head and not is_expert(name)
        }

    def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
        return param_name in self.names

    def get_quantize_ops(self) -> ConversionOps:
        return _QuantiseWeight(self)

    def postprocess_model(self, model: Any, **_: Any) -> None:
        self.remove_quantization_config(model)

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return False


class _QuantiseWeight(ConversionOps):  # type: ignore[misc]  # transformers is untyped
    """Quantises each selected weight, and puts an empty weight on the meta device in its place."""

    def __init__(self, quantiser: _Quantiser) -> None:
        self._quantiser = quantiser

    def convert(self, input_dict: dict[str, Any], *, model: Any, **_: Any) -> dict[str, Tensor]:
        config: QuantiseOnLoad = self._quantiser.quantization_config
        result = {}
        for name, value in input_dict.items():
            weight: Tensor = value[0] if isinstance(value, list) else value
            expected: nn.Parameter = model.get_parameter(name)
            if name in self._quantiser.names and weight.dtype is config.dtype:
                if weight.shape == expected.shape:
                    config.weights[name.removesuffix(".weight")] = config.kernels.quantise(weight)
                    weight = torch.empty_like(weight, device="meta")
                else:
                    self._quantiser.names.discard(name)  # transformers reports the shape
            result[name] = weight
        return result
