"""Reasons why some fields of PEFT's LoraConfig aren't supported, as shown to clients."""

_CHANGED_BASE = (
    "this initialisation changes the base model; save the adapter with "
    "path_initial_model_for_weight_conversion, which converts it to a plain LoRA"
)

ATTENTION_ALONE = (
    'on a mixture of experts, train the attention modules: target_modules=["q_proj", "k_proj", '
    '"v_proj", "o_proj"]'
)
"""Advice for an adapter that trains experts or routers, as PEFT's `all-linear` does."""

UNKNOWN_FIELD = (
    "this version of Lorikeet doesn't know the field; train without it, or set it to null if it "
    "doesn't change the answers"
)

REFUSAL_REASONS = {
    "alora_invocation_tokens": "an activated LoRA starts in the middle of a prompt",
    "arrow_config": "Arrow routes each token to other adapters",
    "corda_config": _CHANGED_BASE,
    "init_lora_weights": _CHANGED_BASE,
    "kasa_config": "KaSA removes small singular values from the base model's weights",
    "layer_replication": "it builds a deeper model out of the base model's layers",
    "loftq_config": _CHANGED_BASE,
    "lora_ga_config": _CHANGED_BASE,
    "megatron_config": "it needs Megatron's parallel layers",
    "monteclora_config": "it samples weights at random",
    "use_bdlora": "its A and B are block-diagonal",
    "use_qalora": "it needs a base model quantised by GPTQ",
    "velora_config": "it changes how gradients are computed and stores more than A and B",
}
"""For each unsupported field, the end of an error message, which says why the field is refused."""
