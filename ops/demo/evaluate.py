"""Asks a running server for the answers to held-out prompts, of adapters and base in one mix."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx
import orjson

from ops.bench.load.answers import client
from ops.demo.task import Example, Task
from shared.errors import LorikeetError


class EvaluationFailed(LorikeetError):
    """Requests failed, so that the shares count for nothing."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the base and the adapter said to one held-out prompt."""

    prompt: str
    wanted: str
    base: str
    adapter: str
    is_base_right: bool
    is_adapter_right: bool


@dataclass(frozen=True, slots=True)
class Score:
    """How a task went."""

    task: str
    answers: Sequence[Answered]

    @property
    def base_share(self) -> float:
        """Of the answers, how many of the base's are right."""
        return sum(answer.is_base_right for answer in self.answers) / len(self.answers)

    @property
    def adapter_share(self) -> float:
        """Of the answers, how many of the adapter's are right."""
        return sum(answer.is_adapter_right for answer in self.answers) / len(self.answers)


@dataclass(frozen=True, slots=True)
class _Asked:
    task: Task
    example: Example
    model: str


def held_out_of(tasks: Sequence[Task], most: int | None) -> dict[str, list[Example]]:
    """The held-out examples by task, of each at most so many, evenly spread."""
    found = {}
    for task in tasks:
        examples = task.held_out()
        step = max(1, -(-len(examples) // most)) if most else 1
        found[task.name] = examples[::step]
    return found


async def evaluate(
    url: str,
    api_key: str | None,
    *,
    base: str,
    tasks: Sequence[Task],
    held_out: Mapping[str, Sequence[Example]],
    num_clients: int,
    on_done: Callable[[], None],
) -> list[Score]:
    """Ask `base` and every task's adapter, all prompts in one mix, and judge the answers.

    Raises:
        EvaluationFailed: requests failed.
    """
    asked = [
        _Asked(task, example, model)
        for task in tasks
        for example in held_out[task.name]
        for model in (base, task.name)
    ]
    random.Random(0).shuffle(asked)
    texts: dict[_Asked, str] = {}
    errors: list[str] = []

    async def ask_each(rest: Iterator[_Asked]) -> None:
        for one in rest:
            try:
                texts[one] = await _ask(http, url, one)
            except (httpx.HTTPError, EvaluationFailed) as error:
                errors.append(f"{one.model}: {str(error) or type(error).__name__}")
            on_done()

    rest = iter(asked)
    async with client(url, api_key) as http, asyncio.TaskGroup() as clients:
        for _ in range(num_clients):
            clients.create_task(ask_each(rest))
    if errors:
        reasons = "\n".join(sorted(set(errors)))
        raise EvaluationFailed(f"{len(errors)} of {len(asked)} requests failed:\n{reasons}")
    return [_score(task, held_out[task.name], texts, base) for task in tasks]


async def _ask(http: httpx.AsyncClient, url: str, asked: _Asked) -> str:
    body = {
        "model": asked.model,
        "messages": [{"role": "user", "content": asked.example.prompt}],
        "temperature": 0,
        "max_tokens": asked.task.max_tokens,
    }
    reply = await http.post(f"{url}/v1/chat/completions", json=body)
    if reply.status_code != 200:
        raise EvaluationFailed(f"HTTP {reply.status_code}: {reply.text[:200]}")
    text: str = orjson.loads(reply.content)["choices"][0]["message"]["content"]
    return text


def _score(
    task: Task, examples: Sequence[Example], texts: Mapping[_Asked, str], base: str
) -> Score:
    return Score(task.name, [_answered(task, e, texts, base) for e in examples])


def _answered(task: Task, example: Example, texts: Mapping[_Asked, str], base: str) -> Answered:
    plain, adapted = (texts[_Asked(task, example, model)] for model in (base, task.name))
    return Answered(
        prompt=example.prompt,
        wanted=example.answer,
        base=plain,
        adapter=adapted,
        is_base_right=task.is_right(example, plain),
        is_adapter_right=task.is_right(example, adapted),
    )
