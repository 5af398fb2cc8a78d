"""Trains the demo's adapters with PEFT on a CPU: `python -m ops.demo.train extract`.

The same seed on the same machine and libraries gives the same weights. README.md beside this
file has the results.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from ops.demo import extract, pirate
from ops.demo.model import HUB_ID, demo_model
from ops.demo.task import Example, Task

TASKS = {task.name: task for task in (extract.TASK, pirate.TASK)}
ADAPTERS = Path(__file__).parent / "adapters"
BATCH = 8
_IGNORED = -100
"""The label that the loss passes over."""


class Student:
    """The demo model and its tokenizer, asked and trained in batches."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    def ask(self, prompts: Sequence[str], *, max_tokens: int = 96) -> list[str]:
        """The greedy answer to each prompt."""
        answers: list[str] = []
        for start in track(range(0, len(prompts), 16), "asking", transient=True):
            texts = [self._prompt(prompt) for prompt in prompts[start : start + 16]]
            inputs = self.tokenizer(texts, return_tensors="pt", padding=True)
            with torch.inference_mode():
                ids = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
            new = ids[:, inputs["input_ids"].shape[1] :]
            answers += self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return answers

    def train(self, task: Task, examples: Sequence[Example]) -> None:
        """Add an adapter to the model and fit it to the answers of `examples`."""
        self.model = get_peft_model(self.model, _config(task))
        weights = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=task.learning_rate, weight_decay=0.0)
        total = task.epochs * -(-len(examples) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=task.learning_rate, total_steps=total, pct_start=0.1
        )
        with Progress(transient=True) as bar:
            row = bar.add_task("training", total=total)
            for batch in _batches(examples, task.epochs):
                loss = self.model(**self._encode(batch)).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                bar.update(row, advance=1, description=f"training, loss {loss.item():.3f}")

    def save(self, folder: Path) -> None:
        """Write the adapter as bf16 safetensors, with the hub's name of its base."""
        config = self.model.peft_config["default"]
        config.base_model_name_or_path = HUB_ID
        config.target_modules = sorted(config.target_modules)  # a set: in another order each time
        # Or PEFT would ask the hub whether the vocabulary was changed.
        self.model.to(torch.bfloat16).save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink()  # PEFT's empty model card

    def _prompt(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _encode(self, batch: Sequence[Example]) -> dict[str, Any]:
        """Left-padded ids `[B, T]`; logits and labels `[B, K]` where answers are."""
        prompts = [self.tokenizer(self._prompt(example.prompt))["input_ids"] for example in batch]
        answers = [self.tokenizer(example.answer)["input_ids"] for example in batch]
        answers = [[*answer, self.tokenizer.eos_token_id] for answer in answers]
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        inputs = self.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        # One more, since the token before an answer predicts its first one.
        kept = 1 + max(map(len, answers))
        labels = [[_IGNORED] * (kept - len(answer)) + answer for answer in answers]
        return {**inputs, "labels": torch.tensor(labels), "logits_to_keep": kept}


def train(task: Task) -> None:
    """Train and save one adapter, and print how base and adapter do on held-out prompts."""
    torch.manual_seed(0)
    student = Student(demo_model())
    held_out = task.held_out()
    before = student.ask([example.prompt for example in held_out])
    student.train(task, task.training(student.ask))
    student.save(ADAPTERS / task.name)
    after = student.ask([example.prompt for example in held_out])
    _report(task, held_out, before, after)


def _config(task: Task) -> LoraConfig:
    return LoraConfig(
        r=task.rank,
        lora_alpha=2 * task.rank,
        target_modules=list(task.target_modules),
        task_type="CAUSAL_LM",
    )


def _batches(examples: Sequence[Example], epochs: int) -> Iterator[list[Example]]:
    for _ in range(epochs):
        order = torch.randperm(len(examples)).tolist()
        for start in range(0, len(order), BATCH):
            yield [examples[i] for i in order[start : start + BATCH]]


def _report(task: Task, held_out: list[Example], before: list[str], after: list[str]) -> None:
    console = Console()
    for example, answer in zip(held_out, after, strict=True):
        mark = "[green]right[/]" if task.is_right(example, answer) else "[red]wrong[/]"
        console.print(f"{mark} {example.prompt}", highlight=False)
        console.print(f"      {answer}", style="dim", markup=False, highlight=False)
    table = Table("model", "right", title=f"{task.name}: {len(held_out)} held-out prompts")
    for name, answers in (("base", before), (task.name, after)):
        right = sum(map(task.is_right, held_out, answers))
        table.add_row(name, f"{right} ({right / len(held_out):.0%})")
    console.print(table)


def main(names: Sequence[str]) -> None:
    """Train the named adapters, or all."""
    unknown = set(names) - TASKS.keys()
    if unknown:
        sys.exit(f"no such adapter: {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    for name in names or TASKS:
        train(TASKS[name])


if __name__ == "__main__":
    main(sys.argv[1:])
