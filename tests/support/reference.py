"""What transformers + PEFT answer, one request at a time, and the rule of equality in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

MAX_GAP = 1e-3
"""Where two texts part, the reference's two best logits must be closer than this."""


@dataclass(frozen=True)
class Reference:
    """Greedy tokens, and for each the distance between the two best logits."""

    tokens: list[int]
    gaps: list[float]


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int], num_tokens: int) -> Reference:
    """The `num_tokens` tokens that `model` answers, end-of-sequence tokens ignored."""
    out = model(input_ids=torch.tensor([list(prompt)]), use_cache=True)
    tokens: list[int] = []
    gaps: list[float] = []
    for _ in range(num_tokens):
        best = out.logits[0, -1].topk(2)
        tokens.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        out = model(
            input_ids=torch.tensor([tokens[-1:]]),
            past_key_values=out.past_key_values,
            use_cache=True,
        )
    return Reference(tokens, gaps)


def count_ties(got: Sequence[int], expected: Reference) -> int:
    """0 if the tokens are equal, 1 if they part at a near tie; anything else fails the test."""
    assert len(got) == len(expected.tokens)
    for position, (ours, theirs) in enumerate(zip(got, expected.tokens, strict=True)):
        if ours != theirs:
            gap = expected.gaps[position]
            assert gap < MAX_GAP, f"token {position}: {ours} for {theirs}, top-2 gap {gap}"
            return 1
    return 0
