"""Answers of the demo model in float32 equal those of transformers + PEFT."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engines import engine_of, greedy_request, run
from reference import check_greedy_along, logits_along, with_adapter
from transformers import AutoModelForCausalLM

from ops.demo.model import demo_model
from ops.demo.tasks import ADAPTERS, TASKS
from worker.model.loader import load_model

pytestmark = pytest.mark.demo

NUM_REQUESTS = 16
NUM_TOKENS = 32
BASE = "base"
SHIPPED = sorted(folder.name for folder in ADAPTERS.iterdir())
NAMES = [BASE, *SHIPPED]


@pytest.fixture(scope="module")
def folder() -> Path:
    return demo_model()


def prompt_of(tokenizer: Any, index: int) -> list[int]:
    """Return a held-out prompt of the tasks, which take turns."""
    held_out = TASKS[SHIPPED[index % len(SHIPPED)]].held_out()
    messages = [{"role": "user", "content": held_out[index].prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


@pytest.mark.slow
def test_a_mixed_batch_with_chunks_and_preemption_equals_the_reference(folder: Path) -> None:
    adapters = {name: ADAPTERS / name for name in SHIPPED}
    loaded = load_model(str(folder), dtype="float32", device="cpu")
    engine, versions = engine_of(loaded, adapters, num_blocks=48, budget=100)
    prompts = [prompt_of(loaded.tokenizer, index) for index in range(NUM_REQUESTS)]
    names = [NAMES[index % len(NAMES)] for index in range(NUM_REQUESTS)]
    requests = [
        greedy_request(str(i), prompts[i], NUM_TOKENS, versions.get(names[i]))
        for i in range(NUM_REQUESTS)
    ]
    tokens = run(engine, requests)
    assert engine.stats().num_preemptions > 0
    del engine, loaded

    for name in NAMES:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if name != BASE:
            model = with_adapter(model, ADAPTERS / name)
        for number in (number for number, own in enumerate(names) if own == name):
            got = tokens[str(number)]
            check_greedy_along(logits_along(model, prompts[number], got), got)
