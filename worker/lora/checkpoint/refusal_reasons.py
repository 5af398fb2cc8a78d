"""Why some fields of PEFT's LoraConfig aren't served, for who sets them."""

_CHANGED_BASE = (
    "this initialisation changes the base model; save the adapter with "
    "path_initial_model_for_weight_conversion, which makes it a plain LoRA"
)

WHY_NOT = {
    "alora_invocation_tokens": "an activated LoRA begins in the middle of a prompt",
    "arrow_config": "it sends each token to other adapters",
    "corda_config": _CHANGED_BASE,
    "init_lora_weights": _CHANGED_BASE,
    "kasa_config": "it cuts small singular values off the base's weights",
    "layer_replication": "it makes a deeper model of the base's layers",
    "loftq_config": _CHANGED_BASE,
    "lora_ga_config": _CHANGED_BASE,
    "megatron_config": "its layers are Megatron's",
    "monteclora_config": "it draws weights at random",
    "target_parameters": (
        "parameters without a linear of their own, as experts have, see tokens in another order"
    ),
    "use_bdlora": "its A and B are block-diagonal",
    "use_qalora": "it needs a base quantised by GPTQ",
    "velora_config": "it changes how gradients are computed, and keeps more than A and B",
}
"""By field; a field that isn't here is one that this version of PEFT doesn't have."""
