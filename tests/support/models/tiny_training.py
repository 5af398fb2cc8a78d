"""Trains an adapter of the tiny model to give a fixed answer."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_model, tiny_tokenizer

IGNORED = -100
"""Label of the tokens that the loss leaves out."""
MAX_STEPS = 400


def train_adapter(folder: Path, prompt_ids: list[int], answer: str) -> None:
    """Train and save an adapter that answers the prompt with `answer` and stops; takes seconds."""
    tokenizer = tiny_tokenizer()
    answered = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
    ids = torch.tensor([prompt_ids + answered])
    labels = torch.tensor([[IGNORED] * len(prompt_ids) + answered])
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    model = get_peft_model(tiny_model(), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(MAX_STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        if loss < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01, f"training did not converge: loss {loss}"
    model.save_pretrained(folder)
