"""The classes through which transformers quantises weights while it reads them."""

from worker.upstream.changes import names_of

with names_of("transformers"):
    from transformers.core_model_loading import ConversionOps
    from transformers.quantizers.auto import register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

__all__ = ["ConversionOps", "HfQuantizer", "QuantizationConfigMixin", "register_quantizer"]
