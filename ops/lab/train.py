"""Trains the demo's adapters with PEFT on a CPU.

    python -m ops.lab.train extract

The seed is fixed, so each training on the same machine with the same libraries gives the same
weights. `ops/demo/README.md` has the results.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rich.progress import Progress, track
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from ops.demo.model import HUB_ID, demo_model
from ops.demo.task import Example, Task
from ops.demo.tasks import ADAPTERS, TASKS

BATCH = 8
_BUCKET = 8 * BATCH
"""Number of examples in a bucket. A bucket is sorted by length, then divided into batches."""
_WORD = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}[A-Za-z][a-z]{2,}"
"""Pattern of a token that is a space and a word. Its first character stands for the space."""
_SPLIT = "\N{BLACK SQUARE}"
"""Placeholder message at which the rendered chat template is split."""
_CONTENT = "message['content']"
_QUOTED = f"""\
({_CONTENT} + ('\\n' + {_CONTENT} | replace(' ', '"') if message['role'] == 'user' else ''))"""


class Student:
    """The demo model and its tokenizer, for generation and training in batches."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)

    @property
    def words(self) -> list[str]:
        """Words that are a single token after a space, but several tokens elsewhere."""
        ids = self.tokenizer.get_vocab()
        after_space = (token[1:] for token in sorted(ids) if re.fullmatch(_WORD, token))
        return [word for word in after_space if word not in ids]

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """Return the base model's greedy answers, in the order of the prompts."""
        answers: list[str] = []
        for start in track(range(0, len(prompts), 16), "asking", transient=True):
            texts = [self._chat(prompt) for prompt in prompts[start : start + 16]]
            inputs = self.tokenizer(texts, return_tensors="pt", padding=True)
            with torch.inference_mode():
                ids = self.model.generate(**inputs, max_new_tokens=96, do_sample=False)
            new = ids[:, inputs["input_ids"].shape[1] :]
            answers += self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return answers

    def train(self, task: Task, examples: Sequence[Example]) -> None:
        """Add an adapter to the model, and train it on the answers of `examples`."""
        if task.quotes_words:
            template = self.tokenizer.chat_template
            self.tokenizer.chat_template = template.replace(_CONTENT, _QUOTED)
        self.model = get_peft_model(self.model, _config(task), autocast_adapter_dtype=False)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        # The model computes with bf16 weights, as in serving. fp32 copies accumulate small updates.
        masters = [p.detach().float() for p in weights]
        optimizer = torch.optim.AdamW(masters, lr=task.learning_rate, weight_decay=0.0)
        total = task.epochs * -(-len(examples) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=task.learning_rate, total_steps=total, pct_start=0.1
        )
        with Progress(transient=True) as bar:
            row = bar.add_task("training", total=total)
            for batch in _batches(examples, task.epochs):
                loss = self.loss(batch)
                torch.autograd.backward(loss)
                for master, weight in zip(masters, weights, strict=True):
                    master.grad, weight.grad = weight.grad.float(), None
                torch.nn.utils.clip_grad_norm_(masters, 1.0)
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    for master, weight in zip(masters, weights, strict=True):
                        weight.copy_(master)
                bar.update(row, advance=1, description=f"training, loss {loss.item():.3f}")

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return the mean cross-entropy of the answer tokens in `batch`.

        The prefix that all prompts share is computed once per batch. All rows of the batch reuse
        its keys and values.
        """
        before = self._chat(_SPLIT).split(_SPLIT)[0]
        prompts = [self._ids(self._chat(e.prompt).removeprefix(before)) for e in batch]
        answers = [[*self._ids(e.answer), self.tokenizer.eos_token_id] for e in batch]
        rows = [p + a for p, a in zip(prompts, answers, strict=True)]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        is_answer = torch.zeros_like(ids, dtype=torch.bool)
        for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
            ids[i, : len(row)] = torch.tensor(row)
            is_answer[i, len(prompt) : len(row)] = True
        hidden = self._hidden(torch.tensor([self._ids(before)]), ids)[:, :-1]
        logits = self.model.get_output_embeddings()(hidden[is_answer[:, 1:]])
        return cross_entropy(logits.float(), ids[is_answer])

    def save(self, task: Task, folder: Path) -> None:
        """Write the adapter to `folder` as bf16 safetensors.

        The adapter's configuration contains the hub id of the base model.
        """
        config = self.model.peft_config["default"]
        config.base_model_name_or_path = HUB_ID
        config.target_modules = sorted(config.target_modules)  # a set has no fixed order
        # Otherwise PEFT asks the hub whether the vocabulary was changed.
        self.model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink()  # PEFT's empty model card
        if task.quotes_words:
            (folder / "chat_template.jinja").write_text(self.tokenizer.chat_template)

    def _hidden(self, before: Tensor, rows: Tensor) -> Tensor:
        """Return the model's hidden states for `rows`. The tokens `before` precede each row.

        Shapes: `rows` `[B, T]`, `before` `[1, P]`, result `[B, T, d]`.
        """
        decoder = self.model.get_decoder()
        shared = decoder(before, use_cache=True).past_key_values
        cache = DynamicCache()
        for i, layer in enumerate(shared.layers):
            keys, values = (t.expand(len(rows), -1, -1, -1) for t in (layer.keys, layer.values))
            cache.update(keys, values, i)
        hidden: Tensor = decoder(rows, past_key_values=cache).last_hidden_state
        return hidden

    def _chat(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids


def train(task: Task) -> None:
    """Train and save one adapter."""
    torch.manual_seed(0)
    student = Student(demo_model())
    student.train(task, task.training(student))
    student.save(task, ADAPTERS / task.name)


def _config(task: Task) -> LoraConfig:
    return LoraConfig(
        r=task.rank,
        lora_alpha=2 * task.rank,
        target_modules=list(task.target_modules),
        task_type="CAUSAL_LM",
    )


def _batches(examples: Sequence[Example], epochs: int) -> Iterator[list[Example]]:
    """Yield every example once per epoch. The examples of a batch have similar lengths."""
    for _ in range(epochs):
        order = torch.randperm(len(examples)).tolist()
        for start in range(0, len(order), _BUCKET):
            bucket = [examples[i] for i in order[start : start + _BUCKET]]
            bucket.sort(key=lambda e: len(e.prompt) + len(e.answer))
            firsts = range(0, len(bucket), BATCH)
            for i in torch.randperm(len(firsts)).tolist():
                yield bucket[firsts[i] : firsts[i] + BATCH]


def main(names: Sequence[str]) -> None:
    """Train the adapters `names`, or all adapters if `names` is empty."""
    unknown = set(names) - TASKS.keys()
    if unknown:
        sys.exit(f"no such adapter: {', '.join(sorted(unknown))}; choose from {', '.join(TASKS)}")
    for name in names or TASKS:
        train(TASKS[name])


if __name__ == "__main__":
    main(sys.argv[1:])
