"""The registry of functions that compute experts in transformers, and its own function."""

from worker.upstream.changes import names_of

with names_of("transformers"):
    from transformers.integrations.moe import (
        ALL_EXPERTS_FUNCTIONS,
        grouped_mm_experts_forward,
    )
    from transformers.integrations.moe import (
        _grouped_linear as grouped_linear,
    )

__all__ = ["ALL_EXPERTS_FUNCTIONS", "grouped_linear", "grouped_mm_experts_forward"]
