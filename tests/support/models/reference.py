"""Reference answers of transformers + PEFT, and comparisons with them in float32."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

MAX_GAP = 1e-3
"""Where two answers first differ, the reference's two best logits must be closer than this."""


@dataclass(frozen=True)
class Reference:
    """Greedy tokens, and the gap between the two best logits of each."""

    tokens: list[int]
    gaps: list[float]


def with_adapter(model: Any, folder: Path) -> Any:
    """Return `model` with the adapter in `folder` active. Changes `model`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice on training
        return PeftModel.from_pretrained(model, str(folder)).eval()


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int], num_tokens: int) -> Reference:
    """Return `model`'s first `num_tokens` greedy tokens; it doesn't stop at end tokens."""
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=-1,  # None would keep the model's own
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        ),
    )
    best = [logits[0].topk(2).values for logits in out.logits]
    return Reference(
        tokens=out.sequences[0, len(prompt) :].tolist(), gaps=[float(b[0] - b[1]) for b in best]
    )


def count_ties(got: Sequence[int], expected: Reference) -> int:
    """Return 0 if the tokens are equal, 1 if they first differ at a near tie; else fail."""
    assert len(got) == len(expected.tokens)
    for position, (ours, theirs) in enumerate(zip(got, expected.tokens, strict=True)):
        if ours != theirs:
            gap = expected.gaps[position]
            assert gap < MAX_GAP, f"token {position}: {ours} for {theirs}, top-2 gap {gap}"
            return 1
    return 0


@torch.inference_mode()
def logits_along(model: Any, prompt: Sequence[int], got: Sequence[int]) -> torch.Tensor:
    """Return `[len(got), V]`: the logits from which `model` would sample each token of `got`."""
    logits: torch.Tensor = model(input_ids=torch.tensor([[*prompt, *got]])).logits[0]
    return logits[len(prompt) - 1 : -1]


def count_ties_along(logits: torch.Tensor, got: Sequence[int]) -> int:
    """Count the tokens of `got` that are near ties with the reference's best token.

    The test fails if another token isn't the best. Without ties, `got` therefore equals `greedy`,
    which would need one forward per token instead of one in all.
    """
    gaps = logits.amax(-1) - logits.gather(-1, torch.tensor(got)[:, None])[:, 0]
    assert gaps.max() < MAX_GAP, (
        f"token {int(gaps.argmax())} has a logit {float(gaps.max())} below the best"
    )
    return int((gaps > 0).sum())


def check_logprobs_along(
    logits: torch.Tensor, got: Sequence[int], logprobs: Sequence[float]
) -> None:
    """Check that `logprobs` are the reference's log-probabilities of the first tokens of `got`."""
    ids = torch.tensor(got[: len(logprobs)], dtype=torch.int64)
    expected = logits[: len(ids)].log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    gaps = (expected - torch.tensor(logprobs)).abs()
    assert len(ids) == 0 or gaps.max() < MAX_GAP, f"token {int(gaps.argmax())}: {gaps.max()}"
