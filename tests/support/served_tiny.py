"""A tiny model with three adapters on disk, and their transformers + PEFT references."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import save_adapter, save_tiny_model, tiny_model, tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

BASE = "tiny"
RANDOM_ADAPTERS: dict[str, dict[str, Any]] = {
    "narrow": {"r": 3, "lora_alpha": 9, "target_modules": ["q_proj", "v_proj"]},
    "wide": {"r": 24, "lora_alpha": 8, "use_rslora": True, "target_modules": "all-linear"},
}
POLYGLOT = "polyglot"
QUESTION = "你会说中文吗 🙂"
ANSWER = "你好，世界！🦜 中文 🇨🇳👩\u200d🚀 — café."  # noqa: RUF001
"""Answer to `QUESTION` that the adapter `polyglot` is trained to give, and then to stop."""
IGNORED = -100
"""Label of the tokens that the loss leaves out."""
MAX_STEPS = 400
NAMES = (BASE, *RANDOM_ADAPTERS, POLYGLOT)
TEMPLATE_OF_MESSAGES = (
    "{% if tools %}<|system|>{% for t in tools %}{{ t.function.name }}{{ t.function.description }}"
    "{{ t.function.parameters or {} }}{{ t.function.strict }}{% endfor %}<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|end|>{% endif %}'
    "{{ reasoning_effort }}{{ enable_thinking }}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.name }}{{ m.tool_call_id }}"
    "{{ m.reasoning_content }}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}<|end|>"
    "{% endfor %}"
)
"""Template that shows everything that a request may contain."""
TEMPLATE = TEMPLATE_OF_MESSAGES + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
"""The base model's chat template."""


def train_adapter(folder: Path, prompt_ids: list[int], answer: str) -> None:
    """Train and save an adapter that answers the prompt with `answer` and stops; takes seconds."""
    tokenizer = tiny_tokenizer()
    answered = [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id]
    ids = torch.tensor([prompt_ids + answered])
    labels = torch.tensor([[IGNORED] * len(prompt_ids) + answered])
    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    model = get_peft_model(tiny_model(), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(MAX_STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        if loss < 0.01:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01, f"training did not converge: loss {loss}"
    model.save_pretrained(folder)


def served_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of the models. Texts begin with a special token, chats don't."""
    tokenizer = tiny_tokenizer()
    begin = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@dataclass(frozen=True)
class TinyModels:
    """Folders of the models that servers load, and a reference model for each name."""

    folder: Path
    tokenizer: PreTrainedTokenizerFast = field(default_factory=served_tokenizer)

    @classmethod
    def save(cls, folder: Path) -> "TinyModels":
        save_tiny_model(folder / BASE)
        served_tokenizer().save_pretrained(folder / BASE)
        for seed, (name, config) in enumerate(RANDOM_ADAPTERS.items()):
            save_adapter(folder / name, seed=seed, **config)
        train_adapter(folder / POLYGLOT, prompt_of_chat(QUESTION), ANSWER)
        return cls(folder)

    @property
    def flags(self) -> list[str]:
        """Flags of a server or worker that serves the models."""
        adapters = [f"{name}={self.folder / name}" for name in NAMES[1:]]
        budgets = ["--kv-cache-mb", "64", "--adapter-memory-mb", "64"]
        model = ["--model", str(self.folder / BASE), "--dtype", "float32"]
        store = ["--adapter-store", str(self.folder / "store")]
        return [*model, "--adapters", *adapters, *budgets, *store]

    @cached_property
    def references(self) -> dict[str, Any]:
        """Models as transformers and PEFT run them, by name."""
        models = {
            name: PeftModel.from_pretrained(tiny_model(), str(self.folder / name)).eval()
            for name in NAMES[1:]
        }
        return {BASE: tiny_model(), **models}

    def chat_ids(self, content: str) -> list[int]:
        return prompt_of_chat(content)

    def text_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    @torch.inference_mode()
    def log_softmax(self, name: str, ids: Sequence[int]) -> torch.Tensor:
        """Return the log-probabilities of the token after each position, `[T, vocabulary]`."""
        logits: torch.Tensor = self.references[name](torch.tensor([list(ids)])).logits[0]
        return logits.log_softmax(-1)

    def text(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text


def prompt_of_chat(content: str, **variables: Any) -> list[int]:
    """Return the prompt of a chat with one user message and these variables of the template."""
    tokenizer, messages = served_tokenizer(), [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **variables
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
