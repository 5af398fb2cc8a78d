"""Which adapter computes which tokens of a step, as the LoRA kernels want it."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch

from shared.ids import AdapterVersion
from worker.kernels.interface import LoRAPages, LoRAPlan, LoRASites
from worker.lora.pages import PAGE_ROWS
from worker.lora.pool import LoRAPool, PoolGroup, SiblingSites
from worker.lora.side_batch import side_batch

Sequences = Sequence[tuple[AdapterVersion | None, int]]
"""(resident adapter or None for the base, number of tokens), from left to right."""


class LoRABatch:
    """The plan of one batch for every module; valid until the pool changes."""

    def __init__(self, pool: LoRAPool, sequences: Sequences) -> None:
        self.num_tokens = sum(num_tokens for _, num_tokens in sequences)
        self._pool = pool
        tokens = _tokens_of(sequences)
        self._targeted = frozenset(
            index
            for index, group in enumerate(pool.groups)
            if any(group.table.pages(version) for version in tokens)
        )
        self.plan = LoRAPlan(
            token_starts=_starts([len(part) for part in tokens.values()], pool.device),
            tokens=_int32([t for part in tokens.values() for t in part], pool.device),
            pages=[_pages(group, tokens, pool.device) for group in pool.groups],
            page_rows=PAGE_ROWS,
        )
        self.side = side_batch(pool.side, tokens)
        """None if no adapter of the batch has side weights."""

    def check_size(self, names: str, num_rows: int) -> None:
        """Raise if modules get other rows than the batch's tokens: they would be mixed up."""
        if num_rows != self.num_tokens:
            raise RuntimeError(
                f"{names} got {num_rows} rows in a batch of {self.num_tokens} tokens"
            )

    def sites(self, siblings: SiblingSites) -> LoRASites | None:
        """The storage of `siblings`; None if no adapter of the batch targets any of them."""
        if self._targeted.isdisjoint(siblings.groups):
            return None
        return self._pool.storage_of(siblings)

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


def _pages(group: PoolGroup, versions: Iterable[AdapterVersion], device: torch.device) -> LoRAPages:
    pages = [group.table.pages(version) for version in versions]
    flat = [page for part in pages for page in part]
    return LoRAPages(_starts([len(part) for part in pages], device), _int32(flat, device))


def _starts(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return _int32([0, *accumulate(lengths)], device)


def _int32(values: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)
