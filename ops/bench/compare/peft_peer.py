"""Measures PEFT with transformers, without a server.

The sequences of a batch use different adapters, which PEFT's argument `adapter_names` selects.

This module runs in its own process (`python -m ops.bench.compare.peft_peer`), so that it shares no
threads or memory with other measurements. The measurement uses bf16, all cores, SDPA attention and
greedy decoding, and ignores the end-of-sequence token.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ops.bench.load.prompts import prompt

PROMPT_WORDS = 128
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


def prompts(seed: str, sequences: int) -> list[str]:
    """Return the prompts for one batch of `sequences` sequences."""
    return [prompt(f"{seed}/{sequences}", index, PROMPT_WORDS) for index in range(sequences)]


def generate(
    peer: Any, tokenizer: Any, adapters: list[str], *, sequences: int, new_tokens: int, seed: str
) -> float:
    """Generate answers for one batch, and return the output tokens per second.

    The measured time includes prefill.
    """
    inputs = tokenizer(prompts(seed, sequences), return_tensors="pt", padding=True).to(peer.device)
    names = [adapters[index % len(adapters)] for index in range(sequences)]
    start = time.perf_counter()
    with torch.inference_mode():
        output = peer.generate(
            **inputs, adapter_names=names, max_new_tokens=new_tokens, do_sample=False
        ).cpu()
    seconds = time.perf_counter() - start
    produced = output.shape[1] - inputs["input_ids"].shape[1]
    if produced != new_tokens:
        raise RuntimeError(f"{new_tokens} tokens requested, {produced} generated")
    return sequences * new_tokens / seconds


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the base model.")],
    adapters: Annotated[Path, typer.Argument(help="Folder with one folder per adapter.")],
    sequences: Annotated[list[int], typer.Option(metavar="N", help="Batch size; may be repeated.")],
    new_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of each answer.")] = 128,
    seed: Annotated[
        str, typer.Option(help="Seed of the prompts, together with the batch size.")
    ] = "",
) -> None:
    """Print one line of JSON that maps each batch size to its output tokens per second."""
    peer, tokenizer, names = load_peer(model, adapters)
    speeds = {}
    for size in sequences:
        generate(peer, tokenizer, names, sequences=size, new_tokens=WARM_UP_TOKENS, seed=seed)
        speeds[size] = generate(
            peer, tokenizer, names, sequences=size, new_tokens=new_tokens, seed=seed
        )
    print(json.dumps(speeds))


if __name__ == "__main__":
    typer.run(main)
