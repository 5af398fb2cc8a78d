"""Requests of engines, and schedulers of them."""

from collections.abc import Sequence
from typing import Any

from shared.protocol.ids import AdapterVersion
from worker.engine.block_manager import BlockManager
from worker.engine.request import ChoiceSampling, Request, RequestId
from worker.engine.scheduler import Chunk, Scheduler

PLAIN = ChoiceSampling(seed=0)
BLOCK = 4
"""Number of tokens in a block of the schedulers."""


def make_request(
    name: str = "r",
    prompt: Sequence[int] = (1,),
    *,
    version: AdapterVersion | None = None,
    sampling: ChoiceSampling = PLAIN,
    max_tokens: int = 100,
    **fields: Any,
) -> Request:
    return Request(
        id=RequestId(name),
        prompt_ids=list(prompt),
        version=version,
        sampling=sampling,
        max_tokens=max_tokens,
        **fields,
    )


def make_scheduler(
    num_blocks: int = 100,
    *,
    max_num_seqs: int = 8,
    budget: int = 64,
    num_slots: int = 0,
    num_snapshots: int = 0,
) -> Scheduler:
    blocks = BlockManager(num_blocks, BLOCK, num_slots, num_snapshots)
    return Scheduler(blocks, max_num_seqs=max_num_seqs, max_num_batched_tokens=budget)


def compute(chunks: Sequence[Chunk]) -> None:
    """Update the requests as the engine does after a forward pass."""
    for chunk in chunks:
        chunk.request.num_computed_tokens = chunk.end
        if chunk.samples:
            chunk.request.output_ids.append(7)
