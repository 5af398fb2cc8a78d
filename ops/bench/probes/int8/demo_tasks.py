"""Compares how well the demo's adapters do their tasks over an int8 and a bfloat16 base."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ops.bench.probes.finding import Chart, Finding
from ops.bench.probes.int8.forms import FORMS, worker_flags
from ops.bench.servers import BASE, lorikeet
from ops.demo.evaluate import Score, evaluate, held_out_of
from ops.demo.tasks import ADAPTERS, TASKS

CLIENTS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScore:
    """Right answers of one task's adapter."""

    task: str
    num_examples: int
    num_right: Mapping[str, int]
    """By form of the base's weights."""
    num_equal: int
    """Answers that are the same text over both bases."""

    def points(self, form: str) -> float:
        """Return the share of right answers in percent."""
        return 100 * self.num_right[form] / self.num_examples


def measure_tasks(
    model: Path, most: int | None, scratch: Path, report: Callable[[str], None]
) -> list[TaskScore]:
    """Evaluate the demo over both bases, one after another. `model` is the demo model's folder.

    Raises:
        EvaluationFailed: a request failed.
        ServerFailed: a server didn't become ready.
    """
    scores: dict[str, list[Score]] = {}
    for form in FORMS:
        scores[form] = _evaluate(model, worker_flags(form), most, scratch)
        report(f"{form}: " + ", ".join(f"{s.task} {s.adapter_share:.1%}" for s in scores[form]))
    return [
        _task_score(dict(zip(FORMS, both, strict=True)))
        for both in zip(*scores.values(), strict=True)
    ]


def _evaluate(model: Path, flags: Sequence[str], most: int | None, scratch: Path) -> list[Score]:
    tasks = list(TASKS.values())
    adapters = {task.name: ADAPTERS / task.name for task in tasks}
    with (
        TemporaryDirectory(dir=scratch) as folder,
        lorikeet(model, adapters, Path(folder), flags) as serving,
    ):
        return asyncio.run(
            evaluate(
                serving.url.removesuffix("/v1"),
                None,
                base=BASE,
                tasks=tasks,
                held_out=held_out_of(tasks, most),
                num_clients=CLIENTS,
                on_done=lambda: None,
            )
        )


def _task_score(scores: Mapping[str, Score]) -> TaskScore:
    answers = [score.answers for score in scores.values()]
    return TaskScore(
        task=next(iter(scores.values())).task,
        num_examples=len(answers[0]),
        num_right={
            form: sum(one.is_adapter_right for one in score.answers)
            for form, score in scores.items()
        },
        num_equal=sum(a.adapter == b.adapter for a, b in zip(*answers, strict=True)),
    )


def tasks_finding(found: Sequence[TaskScore]) -> Finding:
    """Return a finding with one line for each task."""
    series = {
        form: [(float(number), one.points(form)) for number, one in enumerate(found)]
        for form in FORMS
    }
    return Finding(
        name="int8-demo",
        figures={"tasks": found},
        says=tuple(map(_line, found)),
        chart=Chart(
            x=", ".join(f"{number} {one.task}" for number, one in enumerate(found)),
            y="right answers, %",
            series=series,
            joined=False,
        ),
    )


def _line(score: TaskScore) -> str:
    before, after = (score.points(form) for form in FORMS)
    return (
        f"{score.task}, {score.num_examples} examples: bfloat16 {before:.1f} %, "
        f"int8 {after:.1f} %, {after - before:+.1f} points; {score.num_equal} answers are equal"
    )
