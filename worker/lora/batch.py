"""Maps the tokens of a batch to adapters, in the format that the LoRA kernels read."""

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shared.protocol.ids import AdapterVersion
from worker.kernels.interface import LoRAPages, LoRAPlan, LoRASites
from worker.kernels.transfer import to_device
from worker.lora.memory.pages import PAGE_ROWS
from worker.lora.memory.pool import LoRAPool, PageNumbers, SiblingSites
from worker.lora.side.resident import side_batch

Sequences = Sequence[tuple[AdapterVersion | None, int]]
"""Pairs of a resident adapter (None: the base model) and its number of tokens, in batch order."""

_MAX_CACHED_BATCHES = 2
"""Number of cached batches. A step needs a batch for its tokens, and one for the head's inputs."""


NO_ADAPTER = -1
"""Number that stands for the base model in `Owners.numbers`."""


class Owners(NamedTuple):
    """The adapters of a batch, and the adapter of each of its tokens."""

    versions: list[AdapterVersion]
    numbers: NDArray[np.int64]
    """`[T]`: index of each token's adapter in `versions`, or NO_ADAPTER."""


class LoRABatch:
    """LoRA plan and side weights for one batch. Valid until the pool removes an adapter."""

    def __init__(self, pool: LoRAPool, sequences: Sequences) -> None:
        self.num_tokens = sum(num_tokens for _, num_tokens in sequences)
        self._pool = pool
        self._sequences = sequences
        tokens = _tokens_by_adapter(sequences)
        pages = [
            [pool.pages(version, group) for version in tokens] for group in range(len(pool.groups))
        ]
        self._targeted = frozenset(
            group for group, by_adapter in enumerate(pages) if any(part.size for part in by_adapter)
        )
        self.plan = _plan(list(tokens.values()), pages, pool.device)
        self.side = side_batch(pool.side, tokens)
        """Applies the adapters' side weights. None if no adapter in the batch has any."""

    @cached_property
    def owners(self) -> "Owners":
        """The adapter of each token."""
        versions = list(_tokens_by_adapter(self._sequences))
        numbers = {version: number for number, version in enumerate(versions)}
        indices = [
            NO_ADAPTER if version is None else numbers[version] for version, _ in self._sequences
        ]
        lengths = [num_tokens for _, num_tokens in self._sequences]
        return Owners(versions, np.repeat(np.array(indices, np.int64), lengths))

    def check_size(self, names: Sequence[str], num_rows: int) -> None:
        """Raise RuntimeError unless the modules `names` get exactly one row per token."""
        if num_rows != self.num_tokens:
            raise RuntimeError(
                f"{', '.join(names)} got {num_rows} rows in a batch of {self.num_tokens} tokens"
            )

    def sites(self, siblings: SiblingSites) -> LoRASites | None:
        """Return the sites of `siblings` in the pool, or None if no adapter targets them."""
        return None if self._targeted.isdisjoint(siblings.groups) else siblings.storage

    def targets(self, groups: Iterable[int]) -> bool:
        """Return whether an adapter of the batch has LoRA weights in any of the pool's `groups`."""
        return not self._targeted.isdisjoint(groups)

    def changes(self, names: tuple[str, ...]) -> bool:
        """Return whether side weights of the batch change the output of any linear in `names`."""
        return self.side is not None and self.side.changes(names)


class BatchCache:
    """Builds batches and caches the last two. Clears the cache when the pool removes an adapter."""

    def __init__(self, pool: LoRAPool) -> None:
        self._pool = pool
        self._num_removals = pool.num_removals
        self._build = lru_cache(maxsize=_MAX_CACHED_BATCHES)(partial(LoRABatch, pool))

    def batch_of(self, sequences: Sequences) -> LoRABatch | None:
        """Return the batch of `sequences`, or None if all sequences use the base model."""
        if self._num_removals != self._pool.num_removals:
            self._build.cache_clear()
            self._num_removals = self._pool.num_removals
        return None if _use_base(sequences) else self._build(tuple(sequences))


def build_batch(pool: LoRAPool, sequences: Sequences) -> LoRABatch | None:
    """Build the batch of `sequences`, or return None if all sequences use the base model."""
    return None if _use_base(sequences) else LoRABatch(pool, sequences)


def _use_base(sequences: Sequences) -> bool:
    return all(version is None for version, _ in sequences)


def _tokens_by_adapter(sequences: Sequences) -> dict[AdapterVersion, list[int]]:
    """Return the indices of each adapter's tokens in the batch."""
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
    """Build the plan from each adapter's token indices, and its page numbers in each group."""
    tables = [starts_of([len(part) for part in tokens]), np.concatenate(tokens)]
    for by_adapter in pages:
        tables.append(starts_of([part.shape[1] for part in by_adapter]))
        tables.append(np.concatenate(by_adapter, axis=1))
    token_starts, flat_tokens, *group_tables = to_device(
        [table.astype(np.int32) for table in tables], device
    )
    return LoRAPlan(
        token_starts=token_starts,
        tokens=flat_tokens,
        pages=[
            LoRAPages(*pair) for pair in zip(group_tables[::2], group_tables[1::2], strict=True)
        ],
        page_rows=PAGE_ROWS,
    )


def starts_of(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Return where each run of `lengths` starts, and the end of the last: `[len(lengths) + 1]`."""
    return np.array([0, *accumulate(lengths)])
