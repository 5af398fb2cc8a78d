"""How the registry knows an adapter that a worker has read."""

import time
from typing import TYPE_CHECKING

from shared.store.registry import Adapter

if TYPE_CHECKING:  # it imports torch
    from worker.lora.checkpoint.adapter import LoRAAdapter


def entry_of(adapter: "LoRAAdapter", source: str) -> Adapter:
    """The registry's entry, made now; `source` is where every worker finds the files."""
    return Adapter(
        name=adapter.name,
        version=adapter.version,
        digest=adapter.digest,
        weights_digest=adapter.weights_digest,
        source=source,
        rank=adapter.rank,
        num_bytes=adapter.num_bytes,
        created_s=int(time.time()),
    )
