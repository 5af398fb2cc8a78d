"""Finds the linears to which vLLM adds LoRA terms.

vLLM drops the terms of modules whose full names it doesn't know, and reports this only in its debug
log. vLLM makes `ServedLinears` a base class of its workers. The Lorikeet worker calls its method at
the start.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from worker.lora.base.modules import BaseModules

EXTENSION = f"{__name__}.ServedLinears"
"""Name of the class in vLLM's arguments."""
CALL = "lorikeet_served_linears"
_ABSORBED = {"kv_b_proj": "kv_lora_rank"}
"""Linears that vLLM absorbs into other weights if the model's configuration has a certain field.

Maps the ends of the linears' names to these fields. vLLM prepares such linears for adapters, but
doesn't call them in decode steps.
"""


class ServedLinears:
    """Extends vLLM's class of workers."""

    model_runner: Any

    def lorikeet_served_linears(self, names: Sequence[str]) -> list[str]:
        """Return those of `names` (transformers' names) that adapters can change in this worker.

        With pipeline parallelism, each worker has only some of the layers.
        """
        # It imports vLLM's layers, which only vLLM's workers need.
        from vllm.lora.utils import parse_fine_tuned_lora_name

        manager = self.model_runner.lora_manager._adapter_manager
        mapper = getattr(manager.model, "hf_to_vllm_mapper", None)
        mapper = mapper and mapper.get_rename_mapper()
        reached = set(manager.modules)
        reached.update(*manager.packed_modules.values())
        return [
            name
            for name in names
            if parse_fine_tuned_lora_name(f"base_model.model.{name}.lora_A.weight", mapper)[0]
            in reached
        ]


def without_unreached(modules: BaseModules, config: Any, reached: Collection[str]) -> BaseModules:
    """Return `modules` without the linears that vLLM's adapters don't reach."""
    absorbed = {name for name, field in _ABSORBED.items() if getattr(config, field, None)}
    served = {
        name: shape
        for name, shape in modules.linears.items()
        if name in reached and name.rpartition(".")[2] not in absorbed
    }
    lost = dict.fromkeys(modules.linears.keys() - served.keys(), "which vLLM can't adapt")
    return replace(modules, linears=served, others={**modules.others, **lost})
