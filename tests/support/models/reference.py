"""What transformers + PEFT answer, one request at a time, and the rule of equality in float32."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

MAX_GAP = 1e-3
"""Where two texts part, the reference's two best logits must be closer than this."""


@dataclass(frozen=True)
class Reference:
    """Greedy tokens, and for each the distance between the two best logits."""

    tokens: list[int]
    gaps: list[float]


def with_adapter(model: Any, folder: Path) -> Any:
    """`model`, which is changed, with the adapter in `folder` active."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice to who trains
        return PeftModel.from_pretrained(model, str(folder)).eval()


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int], num_tokens: int) -> Reference:
    """The `num_tokens` tokens that `model` answers, end-of-sequence tokens ignored."""
    ids = torch.tensor([list(prompt)])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=GenerationConfig(
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=-1,  # None would leave the one of the model
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
    """0 if the tokens are equal, 1 if they part at a near tie; anything else fails the test."""
    assert len(got) == len(expected.tokens)
    for position, (ours, theirs) in enumerate(zip(got, expected.tokens, strict=True)):
        if ours != theirs:
            gap = expected.gaps[position]
            assert gap < MAX_GAP, f"token {position}: {ours} for {theirs}, top-2 gap {gap}"
            return 1
    return 0


@torch.inference_mode()
def logits_along(model: Any, prompt: Sequence[int], got: Sequence[int]) -> torch.Tensor:
    """`[len(got), V]`: the logits from which `model` would draw each token of `got`."""
    logits: torch.Tensor = model(input_ids=torch.tensor([[*prompt, *got]])).logits[0]
    return logits[len(prompt) - 1 : -1]


def count_ties_along(logits: torch.Tensor, got: Sequence[int]) -> int:
    """How many tokens of `got` are near ties with the reference's choice behind the same tokens.

    All others must be that choice, or the test fails: without ties, `got` is what `greedy` gives.
    One pass finds that out, where `greedy` takes one for each token.
    """
    gaps = logits.amax(-1) - logits.gather(-1, torch.tensor(got)[:, None])[:, 0]
    assert gaps.max() < MAX_GAP, f"token {int(gaps.argmax())} is {float(gaps.max())} behind"
    return int((gaps > 0).sum())


def check_logprobs_along(
    logits: torch.Tensor, got: Sequence[int], logprobs: Sequence[float]
) -> None:
    """Fail unless `logprobs` say how likely the reference finds the first tokens of `got`."""
    ids = torch.tensor(got[: len(logprobs)], dtype=torch.int64)
    expected = logits[: len(ids)].log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    gaps = (expected - torch.tensor(logprobs)).abs()
    assert len(ids) == 0 or gaps.max() < MAX_GAP, f"token {int(gaps.argmax())}: {gaps.max()}"
