"""Which modules count as experts whose weights adapters can change."""

from typing import Any

from tiny import tiny_model
from torch import nn

from worker.lora.base.experts import mixture_weights

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}


def with_own_forward(experts: nn.Module) -> type[nn.Module]:
    """Return a class of experts that sends each token to transformers' function twice."""

    class Repeating(type(experts)):  # type: ignore[misc]
        def forward(self, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
            rows = hidden_states.repeat_interleave(2, dim=0)
            return super().forward(rows, top_k_index.view(-1, 1), top_k_weights.view(-1, 1))

    return Repeating


def test_experts_that_compute_other_rows_than_tokens_are_not_adaptable() -> None:
    model = tiny_model("qwen3_moe", **MOE)
    first = "model.layers.0.mlp.experts"
    assert {f"{first}.gate_up_proj", f"{first}.down_proj"} <= mixture_weights(model).keys()
    experts = model.get_submodule(first)
    experts.__class__ = with_own_forward(experts)
    found = mixture_weights(model)
    assert not any(name.startswith(first) for name in found)
    assert "model.layers.1.mlp.experts.down_proj" in found
