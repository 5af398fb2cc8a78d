"""Requests of the probe of forced tokens and prompt lookup, for the demo model and its adapters."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ops.demo.tasks import ADAPTERS, TASKS
from shared.protocol.ids import AdapterVersion

if TYPE_CHECKING:
    from worker.engine.grammar import Grammar
    from worker.engine.request import Request
    from worker.model.loader import LoadedModel

ORDER = {
    "type": "object",
    "properties": {
        "item": {"type": "string"},
        "quantity": {"type": "integer"},
        "name": {"type": "string"},
        "city": {"type": "string"},
    },
    "required": ["item", "quantity", "name", "city"],
    "additionalProperties": False,
}
"""JSON Schema of the answers of the `extract` adapter."""
PASSAGES = (
    "The harbour town wakes before the sun. Fishermen carry their nets along the quay, and gulls "
    "follow them, loud and hungry. By seven the bakery on Mill Street has sold its first loaves, "
    "and the smell of bread drifts as far as the old lighthouse.",
    "Our ferry arrives at noon with visitors from the mainland. They photograph the painted "
    "houses, ask for the way to the castle and buy postcards at the kiosk. In the evening the "
    "last boat takes them home, and the square belongs to the cats again.",
    "Children walk to school past the market, where traders stack crates of apples, onions and "
    "cheese. The teacher waits at the gate and counts the umbrellas. On rainy days she lights the "
    "stove an hour earlier, so that the classroom is warm when lessons begin.",
    "The library keeps its oldest maps in a room without windows. Twice a year an expert checks "
    "the paper, measures the damp and writes a short report. Last spring two of the maps were "
    "lent to a museum abroad, which returned them in a wooden box.",
)
QUESTIONS = (
    "What is the capital of France, and why is it famous?",
    "Write a short story about a lighthouse keeper.",
    "Explain how a bicycle stays upright.",
    "Give me five tips for learning to cook.",
)
EDITS = "Original:\n{0}\n\nThe same text with all spelling mistakes corrected:\n"


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one kind."""

    adapter: str | None
    prompts: Sequence[list[int]]
    max_tokens: int
    grammar: "Grammar | None" = field(default=None, repr=False)

    def requests(
        self, number: int, versions: Mapping[str, AdapterVersion], stop_ids: frozenset[int]
    ) -> "Iterator[Request]":
        """Yield `number` requests at temperature 0."""
        from worker.engine.request import ChoiceSampling, Request, RequestId

        for index in range(number):
            yield Request(
                id=RequestId(f"probe-{index}:0"),
                prompt_ids=list(self.prompts[index % len(self.prompts)]),
                version=versions[self.adapter] if self.adapter else None,
                sampling=ChoiceSampling(seed=index, temperature=0.0),
                max_tokens=self.max_tokens,
                stop_ids=stop_ids,
                grammar=self.grammar.start() if self.grammar else None,
            )


def workloads(loaded: "LoadedModel", num_prompts: int, max_tokens: int) -> dict[str, Workload]:
    """Return the workloads by name: `extract` under its schema, `edit`, `sql` and `chat`."""
    from worker.engine.grammar import GrammarCompiler, json_source

    compiler = GrammarCompiler(
        loaded.tokenizer, vocab_size=loaded.config.vocab_size, eos_ids=loaded.eos_ids
    )
    order = compiler.compile(json_source(json.dumps(ORDER)))
    chat = _chat_of(loaded.tokenizer)
    asked = {
        name: [chat(name, example.prompt) for example in TASKS[name].held_out()[:num_prompts]]
        for name in ("extract", "sql")
    }
    edits = [loaded.tokenizer(EDITS.format(passage))["input_ids"] for passage in PASSAGES]
    questions = [chat(None, question) for question in QUESTIONS]
    return {
        "extract under its schema": Workload("extract", asked["extract"], max_tokens, order),
        "an edited text": Workload(None, edits[:num_prompts], max_tokens),
        "sql": Workload("sql", asked["sql"], max_tokens),
        "chat": Workload(None, questions[:num_prompts], max_tokens),
    }


def _chat_of(tokenizer: Any) -> Callable[[str | None, str], list[int]]:
    """Return a function that renders a user's message, with an adapter's template if it has one."""

    def chat(adapter: str | None, message: str) -> list[int]:
        template = ADAPTERS / adapter / "chat_template.jinja" if adapter else None
        ids: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}],
            chat_template=template.read_text() if template and template.is_file() else None,
            add_generation_prompt=True,
            return_dict=False,
        )
        return ids

    return chat
