"""Greedy texts of vLLM agree with transformers + PEFT, base and adapters in one batch.

In bfloat16, results depend on the shape of a batch. So the reference reads the text that vLLM has
written, and judges each token of it. Beyond an answer's end, where no adapter has been trained, the
reference itself is unsure: at one token, its lead over the second best varied from 0.375 to 1.0
with the shape of the batch alone. So a few of these tokens may be farther from its best.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import logits_along, with_adapter
from transformers import AutoModelForCausalLM

from ops.demo.tasks import ADAPTERS, TASKS
from shared.protocol.ids import AdapterVersion
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.served_model import ServedModel

NUM_REQUESTS = 48
MAX_TOKENS = 32
MIN_ANSWERED = 512
"""Least number of tokens of answers that are compared, with their end tokens."""
MIN_BEYOND = 256
"""Least number of tokens beyond the ends of answers that are compared."""
MAX_BELOW = 0.5
"""How far a token's logit may lie below the reference's best one."""
MIN_AGREEING = 0.98
"""Least share of tokens that are the reference's best."""
MAX_FARTHER = 0.005
"""Largest share of tokens beyond an answer's end that may be farther than `MAX_BELOW`."""
BASE = "base"
SHIPPED = sorted(folder.name for folder in ADAPTERS.iterdir())
NAMES = [BASE, *SHIPPED]


@pytest.fixture(scope="module")
def versions(served: ServedModel) -> dict[str, AdapterVersion]:
    """Make the demo's adapters resident, and return their versions."""
    supply, engine = served.adapters, served.engine
    found = {}
    for name in SHIPPED:
        image = supply.host.put(supply.source.read(name, str(ADAPTERS / name)).weights)
        placing = engine.place(image)
        assert placing.reserved is not None
        engine.write_adapter(placing.reserved, image)
        engine.activate_adapter(placing.reserved, image)
        found[name] = image.version
    return found


def request_of(served: ServedModel, number: int, version: AdapterVersion | None) -> Request:
    """Return a greedy request of a held-out prompt, which goes on beyond its answer's end."""
    held_out = TASKS[SHIPPED[number % len(SHIPPED)]].held_out()
    text = held_out[number % len(held_out)].prompt
    tokenizer: Any = served.tokenizer
    prompt = tokenizer.encode_text(
        f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
        add_special_tokens=False,
    )
    return Request(
        id=RequestId(str(number)),
        prompt_ids=prompt,
        version=version,
        sampling=ChoiceSampling(seed=0, temperature=0.0),
        max_tokens=MAX_TOKENS,
        stop_ids=frozenset(),
    )


def answered(served: ServedModel, versions: dict[str, AdapterVersion]) -> list[tuple[str, Request]]:
    """Answer requests of all models in one batch, and return them with their models' names."""
    named = [(NAMES[number % len(NAMES)], number) for number in range(NUM_REQUESTS)]
    requests = [(name, request_of(served, number, versions.get(name))) for name, number in named]
    for _, request in requests:
        served.engine.add(request)
    errors = []
    while served.engine.has_work:
        errors += [output.error for output in served.engine.step() if output.error]
    assert errors == []
    assert all(len(request.output_ids) == MAX_TOKENS for _, request in requests)
    return requests


def far_below(demo_folder: Path, requests: list[tuple[str, Request]]) -> list[list[float]]:
    """Return how far each token of each request lies below the reference's best one."""
    below: dict[str, list[float]] = {}
    for name in NAMES:
        model = AutoModelForCausalLM.from_pretrained(demo_folder, dtype=torch.bfloat16)
        if name != BASE:
            model = with_adapter(model, ADAPTERS / name)
        for request in (request for own, request in requests if own == name):
            logits = logits_along(model, request.prompt_ids, request.output_ids).float()
            chosen = logits.gather(-1, torch.tensor(request.output_ids)[:, None])[:, 0]
            below[request.id] = (logits.amax(-1) - chosen).tolist()
    return [below[request.id] for _, request in requests]


def test_a_mix_of_base_and_adapters_agrees_with_the_reference_beyond_the_end_but_for_a_few_tokens(
    served: ServedModel,
    versions: dict[str, AdapterVersion],
    demo_folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    requests, ends = answered(served, versions), served.info.eos_ids
    answers: list[float] = []
    beyond: list[float] = []
    for (_, request), gaps in zip(requests, far_below(demo_folder, requests), strict=True):
        is_end = [token in ends for token in request.output_ids]
        length = is_end.index(True) + 1 if True in is_end else len(gaps)
        answers += gaps[:length]
        beyond += gaps[length:]
    for name, gaps, fewest, most_farther in (
        ("answers", answers, MIN_ANSWERED, 0),
        ("beyond", beyond, MIN_BEYOND, MAX_FARTHER),
    ):
        assert len(gaps) >= fewest, name
        agreeing = sum(gap == 0 for gap in gaps) / len(gaps)
        farther = sum(gap > MAX_BELOW for gap in gaps) / len(gaps)
        record_property(f"{name}, agreeing", f"{agreeing:.4f} of {len(gaps)} tokens")
        record_property(f"{name}, farther", f"{farther:.4f}, the farthest {max(gaps):.3f}")
        assert agreeing >= MIN_AGREEING, name
        assert farther <= most_farther, name
