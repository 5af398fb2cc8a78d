"""What a JSON Schema costs per token: `python -m ops.bench.grammar`, on an idle machine.

16 rows decode at temperature 1, free and under a schema by turns, in one engine; both have the
same number of rows and tokens.
"""

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ops.demo.model import demo_model
from worker.engine.engine import Engine, EngineConfig
from worker.engine.grammar import Grammar, GrammarCompiler, json_source
from worker.engine.request import Request, RequestId, RowSampling
from worker.model.loader import load_model

NUM_ROWS = 16
NUM_TOKENS = 128
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


def main(
    model: Annotated[Path | None, typer.Option(help="folder; by default the demo's")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Print the milliseconds of a step without and with a schema, and their ratio."""
    loaded = load_model(str(model or demo_model()))
    engine = Engine(loaded, EngineConfig(max_num_seqs=NUM_ROWS))
    compiler = GrammarCompiler(
        loaded.tokenizer, vocab_size=loaded.config.vocab_size, eos_ids=loaded.eos_ids
    )
    grammar = compiler.compile(json_source(json.dumps(ENDLESS)))
    prompt = loaded.tokenizer("A list of works of art as JSON:")["input_ids"]
    _step_ms(engine, prompt, grammar)  # warms everything up
    free, bound = [], []
    for _ in range(rounds):
        free.append(_step_ms(engine, prompt, None))
        bound.append(_step_ms(engine, prompt, grammar))
    without, with_ = statistics.median(free), statistics.median(bound)
    print(f"without {without:.2f} ms a step, with {with_:.2f} ms, ratio {with_ / without:.3f}")


def _step_ms(engine: Engine, prompt: list[int], grammar: Grammar | None) -> float:
    """The median decode step of one run of all rows."""
    for request in _requests(prompt, grammar):
        engine.add(request)
    seconds = []
    while engine.has_work:
        start = time.perf_counter()
        outputs = engine.step()
        seconds.append(time.perf_counter() - start)
        assert not any(output.error for output in outputs), outputs
    assert len(seconds) == NUM_TOKENS, "rows ended early"
    return 1000 * statistics.median(seconds[1:])  # the first step is the prefill


def _requests(prompt: list[int], grammar: Grammar | None) -> Iterator[Request]:
    for row in range(NUM_ROWS):
        yield Request(
            id=RequestId(str(row)),
            prompt_ids=prompt,
            version=None,
            sampling=RowSampling(seed=row),
            max_tokens=NUM_TOKENS,
            grammar=grammar.start() if grammar else None,
        )


if __name__ == "__main__":
    typer.run(main)
