"""Generates the tables of ops/docs/gpu.md: `python -m ops.lab.generate.gpu_sizes`.

The sizes of a worker's parts come from the policy that workers use.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from worker.model.memory import Asked, Sizes, size_worker
from worker.model.memory_policy import (
    CONTEXT_BYTES,
    GIB,
    MIB,
    Batch,
    DeviceMemory,
    Parts,
    estimated_step_bytes,
    layer_width,
)

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
CARDS_GIB = (24, 48, 80)
RANKS = (16, 64)
MEMORY_FRACTION = 0.9
ITEMSIZE = 2
"""Bytes of a weight in bfloat16."""
LEAST_REST = 4 * GIB
"""Bytes that a model shared by several cards must leave on each card.

The KV cache, adapters and steps use them.
"""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model of Llama's architecture."""

    name: str
    hidden: int
    layers: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int = 128_256
    is_tied: bool = False
    """Whether embedding and head share their weights."""
    max_model_len: int = 131_072

    @cached_property
    def linears(self) -> list[tuple[int, int]]:
        """Input width and output width of each linear of one layer."""
        hidden, kv, inner = self.hidden, self.kv_heads * self.head_dim, self.intermediate
        attention = [(hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden)]
        return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]

    @property
    def linear_weights(self) -> int:
        """Number of weights of all linears without the head."""
        return self.layers * sum(width * out for width, out in self.linears)

    @property
    def other_weights(self) -> int:
        """Number of weights of embedding, head and norms."""
        embeddings = self.vocab * self.hidden * (1 if self.is_tied else 2)
        return embeddings + (2 * self.layers + 1) * self.hidden

    @property
    def weight_bytes(self) -> int:
        """Size of the weights in bfloat16."""
        return ITEMSIZE * (self.linear_weights + self.other_weights)

    @property
    def nf4_bytes(self) -> int:
        """Size of an NF4 checkpoint: 4 bits a weight, and a float32 for each block of 64."""
        return self.linear_weights // 2 + self.linear_weights // 16 + ITEMSIZE * self.other_weights

    @property
    def kv_bytes(self) -> int:
        """Size of one token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * ITEMSIZE

    def adapter_bytes(self, rank: int) -> int:
        """Return the size of an adapter on all linears but the head."""
        return ITEMSIZE * rank * self.layers * sum(width + out for width, out in self.linears)


MODELS = (
    Shape(
        name="Llama-3.2-1B",
        hidden=2048,
        layers=16,
        kv_heads=8,
        head_dim=64,
        intermediate=8192,
        is_tied=True,
    ),
    Shape(
        name="Llama-3.1-8B", hidden=4096, layers=32, kv_heads=8, head_dim=128, intermediate=14336
    ),
    Shape(
        name="Llama-3.1-70B", hidden=8192, layers=80, kv_heads=8, head_dim=128, intermediate=28672
    ),
)


@dataclass(frozen=True)
class Card:
    """A GPU that holds the weights of a model and nothing else."""

    model: Shape
    total: int
    is_cpu: bool = False

    @property
    def name(self) -> str:
        """Name of the device for error messages."""
        return "cuda"

    def memory(self) -> DeviceMemory:
        """Return the card's memory as it is after the model is loaded."""
        used = self.model.weight_bytes + CONTEXT_BYTES
        return DeviceMemory(total=self.total, free=max(0, self.total - used), used=used)

    def step_bytes(self, batch: Batch) -> int:
        """Return an estimate of the bytes that a step needs. A running worker measures them."""
        width = layer_width(self.model.hidden, self.model.intermediate)
        return estimated_step_bytes(
            batch, width=width, vocab_size=self.model.vocab, itemsize=ITEMSIZE
        )


def sizes(model: Shape, card_gib: int) -> Sizes | None:
    """Return the sizes of a worker with the default settings, or None if the model doesn't fit."""
    card = Card(model, card_gib * GIB)
    if model.weight_bytes + CONTEXT_BYTES > MEMORY_FRACTION * card.total:
        return None
    asked = Asked(
        parts=Parts(),
        max_num_seqs=None,
        max_num_batched_tokens=None,
        memory_fraction=MEMORY_FRACTION,
    )
    return size_worker(card, asked, full_context=model.max_model_len * model.kv_bytes)


def cards_needed(model: Shape, card_gib: int) -> int:
    """Return the smallest number of cards, a power of two, that can share a model's weights."""
    room = MEMORY_FRACTION * card_gib * GIB - LEAST_REST
    number = 1
    while model.weight_bytes / number > room:
        number *= 2
    return number


def tables() -> str:
    """Return both tables as Markdown."""
    return "\n".join([*_model_table(), "", *_card_table()])


def _model_table() -> Iterator[str]:
    ranks = " | ".join(f"adapter of rank {rank}" for rank in RANKS)
    yield f"| model | weights, bf16 | NF4 checkpoint on disk | KV cache per token | {ranks} |"
    yield "| --- " * (4 + len(RANKS)) + "|"
    for model in MODELS:
        adapters = " | ".join(f"{model.adapter_bytes(rank) / MIB:.0f} MiB" for rank in RANKS)
        yield (
            f"| {model.name} | {model.weight_bytes / GIB:.1f} GiB | {model.nf4_bytes / GIB:.1f} GiB"
            f" | {model.kv_bytes >> 10} KiB | {adapters} |"
        )


def _card_table() -> Iterator[str]:
    yield (
        "| model | card | KV cache | tokens in it | adapter memory | adapters of rank "
        f"{' / '.join(map(str, RANKS))} | largest step |"
    )
    yield "| --- " * 7 + "|"
    for model in MODELS:
        for card_gib in CARDS_GIB:
            yield f"| {model.name} | {card_gib} GiB | {_fit(model, card_gib)} |"


def _fit(model: Shape, card_gib: int) -> str:
    found = sizes(model, card_gib)
    if found is None:
        number = cards_needed(model, card_gib)
        return f"doesn't fit: `--engine vllm --tensor-parallel {number}` | | | | "
    kv, adapters = found.parts.kv, found.parts.adapters
    fitting = " / ".join(f"{adapters // model.adapter_bytes(rank):,}" for rank in RANKS)
    return (
        f"{kv / GIB:.1f} GiB | {kv // model.kv_bytes:,} | {adapters / GIB:.1f} GiB | {fitting} | "
        f"{found.batch.max_num_batched_tokens:,} tokens, {found.step_bytes / GIB:.1f} GiB"
    )


def with_tables(text: str) -> str:
    """Return the page `text` with current tables between its two markers."""
    return re.sub(
        r"(<!-- gpu_sizes -->\n).*?(?=<!-- end -->)",
        lambda match: f"{match[1]}\n{tables()}\n\n",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
