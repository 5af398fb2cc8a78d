"""Reference answers of transformers + PEFT, and comparisons with them in float32."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tiny import tiny_model
from transformers import GenerationConfig

MAX_GAP = 1e-3
"""Largest difference between two computations of a logit or logprob that float32 explains.

Orders of summation change the logits of tiny models, which reach 23, by up to 1.4e-4. An adapter
that isn't applied as PEFT does changes them by 0.1 and more.
"""


def with_adapter(model: Any, folder: Path) -> Any:
    """Return `model` with the adapter in `folder` active. Changes `model`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice on training
        return PeftModel.from_pretrained(model, str(folder)).eval()


def models_of(folders: Mapping[str, Path], model_type: str = "llama") -> dict[str, Any]:
    """Return the tiny model as `base`, and with each adapter active, by name."""
    adapted = {n: with_adapter(tiny_model(model_type), folder) for n, folder in folders.items()}
    return {"base": tiny_model(model_type), **adapted}


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int], num_tokens: int) -> list[int]:
    """Return `model`'s first `num_tokens` greedy tokens; it doesn't stop at end tokens.

    Every order of summation must give these tokens. Therefore the test fails if another token is
    nearly as good as one of them, and needs another prompt.
    """
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
    best = torch.cat(out.logits).topk(2).values
    gap = float((best[:, 0] - best[:, 1]).min())
    assert gap > MAX_GAP, f"choose another prompt: two tokens of this answer have a gap of {gap}"
    tokens: list[int] = out.sequences[0, len(prompt) :].tolist()
    return tokens


@torch.inference_mode()
def logits_along(model: Any, prompt: Sequence[int], got: Sequence[int]) -> torch.Tensor:
    """Return `[len(got), V]`: the logits from which `model` would sample each token of `got`."""
    ids = torch.tensor([[*prompt, *got]])
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits[len(prompt) - 1 : -1]


def check_greedy_along(logits: torch.Tensor, got: Sequence[int]) -> None:
    """Check that each token of `got` has the best of its logits, up to the precision of float32.

    Where no two tokens are nearly equal, `got` therefore equals `greedy`, which would need one
    forward per token instead of one in all.
    """
    gaps = logits.amax(-1) - logits.gather(-1, torch.tensor(got)[:, None])[:, 0]
    assert gaps.max() < MAX_GAP, (
        f"token {int(gaps.argmax())} has a logit {float(gaps.max())} below the best"
    )


def check_logprobs_along(
    logits: torch.Tensor, got: Sequence[int], logprobs: Sequence[float]
) -> None:
    """Check that `logprobs` are the reference's log-probabilities of the first tokens of `got`."""
    ids = torch.tensor(got[: len(logprobs)], dtype=torch.int64)
    expected = logits[: len(ids)].log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    gaps = (expected - torch.tensor(logprobs)).abs()
    assert len(ids) == 0 or gaps.max() < MAX_GAP, f"token {int(gaps.argmax())}: {gaps.max()}"
