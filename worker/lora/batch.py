"""Which adapter computes which tokens of a step, as the LoRA kernels want it."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.protocol.ids import AdapterVersion
from worker.kernels.interface import LoRAPages, LoRAPlan, LoRASites
from worker.lora.memory.pages import PAGE_ROWS
from worker.lora.memory.pool import LoRAPool, PageNumbers, SiblingSites
from worker.lora.side.batch import side_batch

Sequences = Sequence[tuple[AdapterVersion | None, int]]
"""(resident adapter or None for the base, number of tokens), from left to right."""


class LoRABatch:
    """The plan of one batch for every module; valid until the pool gives adapters up."""

    def __init__(self, pool: LoRAPool, sequences: Sequences) -> None:
        self.num_tokens = sum(num_tokens for _, num_tokens in sequences)
        tokens = _tokens_of(sequences)
        pages = [
            [pool.pages(version, group) for version in tokens] for group in range(len(pool.groups))
        ]
        self._targeted = frozenset(
            group for group, found in enumerate(pages) if any(part.size for part in found)
        )
        self.plan = _plan(list(tokens.values()), pages, pool.device)
        self.side = side_batch(pool.side, tokens)
        """None if no adapter of the batch has side weights."""

    def check_size(self, names: Sequence[str], num_rows: int) -> None:
        """Raise if modules get other rows than the batch's tokens: they would be mixed up."""
        if num_rows != self.num_tokens:
            raise RuntimeError(
                f"{', '.join(names)} got {num_rows} rows in a batch of {self.num_tokens} tokens"
            )

    def sites(self, siblings: SiblingSites) -> LoRASites | None:
        """The storage of `siblings`; None if no adapter of the batch targets any of them."""
        return None if self._targeted.isdisjoint(siblings.groups) else siblings.storage

    def changes(self, names: tuple[str, ...]) -> bool:
        """Whether side weights of the batch change the linears `names`."""
        return self.side is not None and self.side.changes(names)


def build_batch(pool: LoRAPool, sequences: Sequences) -> LoRABatch | None:
    """The batch of `sequences`; None if all are the base's: there is no LoRA work then.

    A batch like one of the last two is that one: a step has up to two, of all its tokens and of
    those whose logits are wanted.
    """
    key = tuple(sequences)
    batch: LoRABatch | None = pool.derived.get(key)
    if batch is None and any(version is not None for version, _ in sequences):
        batch = LoRABatch(pool, sequences)
        if len(pool.derived) > 1:
            del pool.derived[next(iter(pool.derived))]
        pool.derived[key] = batch
    return batch


def _tokens_of(sequences: Sequences) -> dict[AdapterVersion, list[int]]:
    tokens: dict[AdapterVersion, list[int]] = {}
    start = 0
    for version, num_tokens in sequences:
        if version is not None:
            tokens.setdefault(version, []).extend(range(start, start + num_tokens))
        start += num_tokens
    return tokens


def _plan(
    tokens: Sequence[Sequence[int]],
    pages: Sequence[Sequence[PageNumbers]],
    device: torch.device,
) -> LoRAPlan:
    """`tokens` by adapter, `pages` by group and adapter."""
    tables = [_starts([len(part) for part in tokens]), np.concatenate(tokens)]
    for found in pages:
        tables.append(_starts([part.shape[1] for part in found]))
        tables.append(np.concatenate(found, axis=1))
    token_starts, flat, *of_groups = _on_device(tables, device)
    return LoRAPlan(
        token_starts=token_starts,
        tokens=flat,
        pages=[LoRAPages(*pair) for pair in zip(of_groups[::2], of_groups[1::2], strict=True)],
        page_rows=PAGE_ROWS,
    )


def _starts(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.array([0, *accumulate(lengths)])


def _on_device(tables: Sequence[NDArray[Any]], device: torch.device) -> list[torch.Tensor]:
    """All of them as int32, in one transfer."""
    flat = np.concatenate([table.ravel() for table in tables]).astype(np.int32)
    sizes = [table.size for table in tables]
    parts = torch.split(torch.from_numpy(flat).to(device), sizes)
    return [part.view(table.shape) for part, table in zip(parts, tables, strict=True)]
