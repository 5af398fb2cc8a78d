"""PEFT's lists of the modules that adapters target."""

from worker.upstream.changes import names_of

with names_of("peft"):
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    from peft.utils.other import EMBEDDING_LAYER_NAMES

__all__ = ["EMBEDDING_LAYER_NAMES", "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"]
