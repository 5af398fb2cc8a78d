"""Trains adapters of the tiny model to give fixed answers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_model, tiny_tokenizer
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100
"""Label of the tokens that the loss leaves out."""
MAX_STEPS = 400


def train_adapter(
    folder: Path, prompt_ids: list[int], answer: str, *, max_steps: int = MAX_STEPS
) -> None:
    """Train and save an adapter that answers the prompt with `answer` and stops; takes seconds."""
    train_answers(folder, [(prompt_ids, answer)], max_steps=max_steps)


def train_answers(
    folder: Path, examples: Sequence[tuple[list[int], str]], *, max_steps: int = MAX_STEPS
) -> None:
    """Train and save an adapter that gives each prompt its answer and stops; takes seconds."""
    ids, labels = _batch(examples)
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    model = get_peft_model(tiny_model(), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(max_steps):
        loss = model(input_ids=ids, labels=labels).loss
        if loss < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01, f"training did not converge: loss {loss}"
    model.save_pretrained(folder)


def _batch(examples: Sequence[tuple[list[int], str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens of all examples, padded at their ends, and the labels of their answers."""
    tokenizer = tiny_tokenizer()
    ids, labels = [], []
    for prompt, answer in examples:
        answered = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
        ids.append(torch.tensor(prompt + answered))
        labels.append(torch.tensor([IGNORED] * len(prompt) + answered))
    return (
        pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )
