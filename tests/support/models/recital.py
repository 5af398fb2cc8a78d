"""Adapters of a tiny model that recite fixed answers, without training.

The model's last hidden states are computed once for each answer. Then a linear system is solved for
the output head that maps each state to the next token. There are more dimensions than states, so
the head is exact.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tiny import save_tiny_model, tiny_model, tiny_tokenizer

SIZES = {"hidden_size": 512, "max_position_embeddings": 2048}
"""Sizes of the base model. An adapter can recite fewer tokens than `hidden_size`."""
_LOGIT = 30.0
"""Logit of the next token. Those of other tokens are about 0."""


def save_reciting_base(folder: Path, **overrides: int) -> Path:
    """Save the base model of the adapters to a folder for `--model`, and return it."""
    return save_tiny_model(folder, **{**SIZES, **overrides})


def save_recital(folder: Path, answers: Sequence[tuple[list[int], str]]) -> Path:
    """Save an adapter that gives each prompt its own answer and stops, and return its folder.

    Args:
        folder: folder for the adapter, for `--adapters`.
        answers: tokens of each prompt, and the text of its answer.
    """
    tokenizer, base = tiny_tokenizer(), tiny_model(**SIZES)
    states, tokens = list[torch.Tensor](), list[int]()
    with torch.no_grad():
        for prompt, text in answers:
            ending = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            ids = torch.tensor([prompt + ending[:-1]])
            states.append(base.model(ids).last_hidden_state[0, len(prompt) - 1 :])
            tokens += ending
    states_of_all = torch.cat(states)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=1, target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    adapter = get_peft_model(base, config)
    head = adapter.base_model.model.lm_head.modules_to_save["default"].weight
    with torch.no_grad():
        head.copy_(_head(states_of_all, tokens, len(tokenizer)))
        margin = _margin(states_of_all @ head.T, tokens)
    assert margin > _LOGIT / 2, f"the states are too similar: the margin is {margin}"
    adapter.save_pretrained(folder)
    return folder


def _head(states: torch.Tensor, tokens: Sequence[int], vocab_size: int) -> torch.Tensor:
    """Return the smallest weights with which each state has the largest logit for its token."""
    logits = torch.zeros(len(tokens), vocab_size)
    logits[range(len(tokens)), list(tokens)] = _LOGIT
    weights: torch.Tensor = torch.linalg.lstsq(states.double(), logits.double(), driver="gelsd")[0]
    return weights.T.float()


def _margin(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    """Return the smallest distance between a token's logit and the next largest one."""
    wanted = logits[range(len(tokens)), list(tokens)].clone()
    logits[range(len(tokens)), list(tokens)] = -torch.inf
    return float((wanted - logits.max(1).values).min())
