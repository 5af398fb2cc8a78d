"""Measures PEFT with transformers, without a server.

The sequences of a batch use different adapters, which PEFT's argument `adapter_names` selects.

This module runs in its own process (`python -m ops.lab.bench.engine.peft_peer`), so that it shares
no threads or memory with other measurements. The measurement uses bf16, all cores, SDPA attention
and greedy decoding, and ignores the end-of-sequence token.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ops.load.prompts import prompt

WARM_UP_TOKENS = 4


def load_peer(model: Path, adapters: Path) -> tuple[Any, Any, list[str]]:
    """Load the base model from folder `model`, with all adapters in folder `adapters`.

    Returns:
        The model with its adapters, the tokenizer, and the adapter names.
    """
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    peer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    peer.generation_config.eos_token_id = None
    peer.generation_config.pad_token_id = tokenizer.pad_token_id
    names = sorted(folder.name for folder in adapters.iterdir())
    for name in names:
        if isinstance(peer, PeftModel):
            peer.load_adapter(adapters / name, name, autocast_adapter_dtype=False)
        else:
            peer = PeftModel.from_pretrained(
                peer, adapters / name, name, autocast_adapter_dtype=False
            )
    return peer.eval(), tokenizer, names


def generate(
    peer: Any, tokenizer: Any, adapters: list[str], prompts: list[str], *, new_tokens: int
) -> float:
    """Generate answers to one batch of prompts, and return the output tokens per second.

    The measured time includes prefill.
    """
    inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(peer.device)
    names = [adapters[index % len(adapters)] for index in range(len(prompts))]
    start = time.perf_counter()
    with torch.inference_mode():
        output = peer.generate(
            **inputs, adapter_names=names, max_new_tokens=new_tokens, do_sample=False
        ).cpu()
    seconds = time.perf_counter() - start
    produced = output.shape[1] - inputs["input_ids"].shape[1]
    if produced != new_tokens:
        raise RuntimeError(f"{new_tokens} tokens requested, {produced} generated")
    return len(prompts) * new_tokens / seconds


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the base model.")],
    adapters: Annotated[Path, typer.Argument(help="Folder with one folder per adapter.")],
    sequences: Annotated[list[int], typer.Option(metavar="N", help="Batch size; may be repeated.")],
    words: Annotated[int, typer.Option(help="Words of a prompt, and tokens of an answer.")] = 128,
    seed: Annotated[str, typer.Option(help="Seed of the prompts.")] = "",
) -> None:
    """Print one line of JSON that maps each batch size to its output tokens per second."""
    peer, tokenizer, names = load_peer(model, adapters)
    speeds = {}
    for size in sequences:
        prompts = [prompt(f"{seed}/{size}", index, words) for index in range(size)]
        generate(peer, tokenizer, names, prompts, new_tokens=WARM_UP_TOKENS)
        speeds[size] = generate(peer, tokenizer, names, prompts, new_tokens=words)
    print(json.dumps(speeds))


if __name__ == "__main__":
    typer.run(main)
