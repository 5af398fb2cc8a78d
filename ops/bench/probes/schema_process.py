"""`python -m ops.bench.probes.schema_process`: steps under a JSON Schema.

Prints what it found as one line of JSON.
"""

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.bench.probes.loaded import load_as_worker
from ops.bench.subprocesses import MeasurementFailed

if TYPE_CHECKING:
    from worker.engine.engine import Engine
    from worker.engine.grammar import Grammar
    from worker.engine.request import Request

NUM_TOKENS = 128
ROUNDS = 5
"""Free and bound rows take turns so often, as the machine's speed drifts."""
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
"""No row may end before the others."""
PROMPT = "A list of works of art as JSON:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaCost:
    """Medians of decode steps of `batch` rows, round by round."""

    batch: int
    free_ms: list[float]
    bound_ms: list[float]


def main(
    model: Annotated[Path, typer.Argument(help="folder of the base model")],
    batch: Annotated[int, typer.Option(help="rows that decode at temperature 1")],
) -> None:
    """Decode steps without and with a schema in turn, in one engine."""
    loaded = load_as_worker(model)
    from worker.engine.config import EngineConfig
    from worker.engine.engine import Engine
    from worker.engine.grammar import GrammarCompiler, json_source

    engine = Engine(loaded, EngineConfig(max_num_seqs=batch))
    compiler = GrammarCompiler(
        loaded.tokenizer, vocab_size=loaded.config.vocab_size, eos_ids=loaded.eos_ids
    )
    grammar = compiler.compile(json_source(json.dumps(ENDLESS)))
    prompt_ids = loaded.tokenizer(PROMPT)["input_ids"]
    _step_ms(engine, batch, prompt_ids, grammar)  # warms everything up
    cost = SchemaCost(batch=batch, free_ms=[], bound_ms=[])
    for _ in range(ROUNDS):
        cost.free_ms.append(_step_ms(engine, batch, prompt_ids, None))
        cost.bound_ms.append(_step_ms(engine, batch, prompt_ids, grammar))
    print(json.dumps(asdict(cost)))


def _step_ms(
    engine: "Engine", batch: int, prompt_ids: list[int], grammar: "Grammar | None"
) -> float:
    """The median decode step of one run of all rows."""
    for request in _requests(batch, prompt_ids, grammar):
        engine.add(request)
    seconds = []
    while engine.has_work:
        start = time.perf_counter()
        outputs = engine.step()
        if any(output.error for output in outputs):
            raise MeasurementFailed(f"the engine says: {outputs}")
        if len(outputs) == batch:  # a step of all rows, and not of their prompts
            seconds.append(time.perf_counter() - start)
    if len(seconds) < NUM_TOKENS - 1:
        raise MeasurementFailed(f"rows ended after {len(seconds)} of {NUM_TOKENS} steps")
    return 1000 * statistics.median(seconds[1:])


def _requests(batch: int, prompt_ids: list[int], grammar: "Grammar | None") -> "Iterator[Request]":
    from worker.engine.request import Request, RequestId, RowSampling

    for row in range(batch):
        yield Request(
            id=RequestId(f"probe-{row}:0"),
            prompt_ids=prompt_ids,
            version=None,
            sampling=RowSampling(seed=row),
            max_tokens=NUM_TOKENS,
            grammar=grammar.start() if grammar else None,
        )


if __name__ == "__main__":
    typer.run(main)
