"""`python -m ops.bench.probes.schema_process`: decode steps with and without a JSON Schema.

The process prints its results as one line of JSON.
"""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.bench.measurement_process import MeasurementFailed
from ops.bench.probes.base_model import load_as_worker

if TYPE_CHECKING:
    from worker.engine.engine import NativeEngine
    from worker.engine.grammar import Grammar
    from worker.engine.request import Request

NUM_TOKENS = 128
ROUNDS = 5
"""Number of rounds. Each round measures both variants.

A drift of the machine's speed therefore affects both variants alike.
"""
ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "kind": {"enum": ["book", "film", "song"]},
        "year": {"type": "integer", "minimum": 1900, "maximum": 2100},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
    },
    "required": ["name", "kind", "year", "tags"],
    "additionalProperties": False,
}
ENDLESS = {"type": "array", "items": ITEM, "minItems": NUM_TOKENS}
"""JSON Schema whose answers exceed `NUM_TOKENS` tokens, so that all sequences end at that limit."""
PROMPT = "A list of works of art as JSON:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaCost:
    """Durations of a decode step of `batch` sequences. Each list has one median per round."""

    batch: int
    free_ms: list[float]
    """Median durations of decode steps without a schema."""
    bound_ms: list[float]
    """Median durations of decode steps with a schema."""


def main(
    model: Annotated[Path, typer.Argument(help="folder of the base model")],
    batch: Annotated[int, typer.Option(help="number of sequences, which decode at temperature 1")],
) -> None:
    """Measure decode steps without and with a schema. The variants alternate in one engine."""
    loaded = load_as_worker(model)
    from worker.engine.config import EngineConfig
    from worker.engine.engine import NativeEngine
    from worker.engine.grammar import GrammarCompiler, json_source

    # Each measured step returns one token of each sequence.
    config = EngineConfig(max_num_seqs=batch, forces_tokens=False, looks_up_tokens=False)
    engine = NativeEngine(loaded, config)
    compiler = GrammarCompiler(
        loaded.tokenizer, vocab_size=loaded.config.vocab_size, eos_ids=loaded.eos_ids
    )
    grammar = compiler.compile(json_source(json.dumps(ENDLESS)))
    prompt_ids = loaded.tokenizer(PROMPT)["input_ids"]
    _step_ms(engine, batch, prompt_ids, grammar)  # warm-up
    cost = SchemaCost(batch=batch, free_ms=[], bound_ms=[])
    for _ in range(ROUNDS):
        cost.free_ms.append(_step_ms(engine, batch, prompt_ids, None))
        cost.bound_ms.append(_step_ms(engine, batch, prompt_ids, grammar))
    print(json.dumps(asdict(cost)))


def _step_ms(
    engine: "NativeEngine", batch: int, prompt_ids: list[int], grammar: "Grammar | None"
) -> float:
    """Run `batch` sequences to their end and return the median duration of a decode step."""
    for request in _requests(batch, prompt_ids, grammar):
        engine.add(request)
    seconds = []
    while engine.has_work:
        start = time.perf_counter()
        outputs = engine.step()
        if any(output.error for output in outputs):
            raise MeasurementFailed(f"the engine reported an error: {outputs}")
        if len(outputs) == batch:  # skip steps that compute prompts
            seconds.append(time.perf_counter() - start)
    if len(seconds) < NUM_TOKENS - 1:
        raise MeasurementFailed(f"sequences ended after {len(seconds)} of {NUM_TOKENS} steps")
    return 1000 * statistics.median(seconds[1:])


def _requests(batch: int, prompt_ids: list[int], grammar: "Grammar | None") -> "Iterator[Request]":
    from worker.engine.request import ChoiceSampling, Request, RequestId

    for row in range(batch):
        yield Request(
            id=RequestId(f"probe-{row}:0"),
            prompt_ids=prompt_ids,
            version=None,
            sampling=ChoiceSampling(seed=row),
            max_tokens=NUM_TOKENS,
            grammar=grammar.start() if grammar else None,
        )


if __name__ == "__main__":
    typer.run(main)
