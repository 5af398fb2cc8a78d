"""Requests that measure forced tokens and prompt lookup with the demo model and its adapters."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.demo.tasks import ADAPTERS, TASKS
from shared.protocol.ids import AdapterVersion

if TYPE_CHECKING:
    from worker.engine.grammar import Grammar
    from worker.engine.request import Request
    from worker.model.loader import LoadedModel

TEXTS = json.loads(Path(__file__).with_name("workloads.json").read_bytes())
"""The JSON Schema of the answers of `extract`, passages to edit, and questions."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts and settings of one kind of requests."""

    adapter: str | None
    prompts: Sequence[list[int]]
    max_tokens: int
    grammar: "Grammar | None" = field(default=None, repr=False)

    def requests(
        self, number: int, versions: Mapping[str, AdapterVersion], stop_ids: frozenset[int]
    ) -> "Iterator[Request]":
        """Yield `number` requests at temperature 0. The prompts are used in turn."""
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
    order = compiler.compile(json_source(json.dumps(TEXTS["order"])))
    chat = _chat_of(loaded.tokenizer)
    asked = {
        name: [chat(name, example.prompt) for example in TASKS[name].held_out()[:num_prompts]]
        for name in ("extract", "sql")
    }
    edits = [
        loaded.tokenizer(TEXTS["edit"].format(passage))["input_ids"]
        for passage in TEXTS["passages"]
    ]
    questions = [chat(None, question) for question in TEXTS["questions"]]
    return {
        "extract under its schema": Workload("extract", asked["extract"], max_tokens, order),
        "an edited text": Workload(None, edits[:num_prompts], max_tokens),
        "sql": Workload("sql", asked["sql"], max_tokens),
        "chat": Workload(None, questions[:num_prompts], max_tokens),
    }


def _chat_of(tokenizer: Any) -> Callable[[str | None, str], list[int]]:
    """Return a function that renders a message as token ids.

    The function uses the adapter's template if there is one.
    """

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
