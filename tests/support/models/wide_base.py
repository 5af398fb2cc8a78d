"""The names of a large model's modules, without its weights."""

from worker.lora.base.modules import BaseModules, ModuleShape

LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
OTHERS = ("self_attn", "mlp", "mlp.act_fn", "input_layernorm", "post_attention_layernorm")


def wide_base(num_layers: int = 126) -> BaseModules:
    linears = {
        f"model.layers.{layer}.{end}": ModuleShape(8, 8)
        for layer in range(num_layers)
        for end in (*LINEARS, *MLP)
    }
    others = {f"model.layers.{layer}.{end}": "X" for layer in range(num_layers) for end in OTHERS}
    return BaseModules(
        model_type="llama",
        linears=linears,
        conv1d=frozenset(),
        others={"model": "X", "model.norm": "X", **others},
        all_linear=frozenset(linears),
    )
