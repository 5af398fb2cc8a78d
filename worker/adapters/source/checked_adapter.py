"""An adapter that was read and checked."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from shared.protocol.adapters import Adapter
from shared.store.inspections import Findings, Inspection
from worker.text.prompt_style import PromptStyle

if TYPE_CHECKING:  # it imports torch
    from worker.lora.checkpoint.adapter import LoRAAdapter


@dataclass(frozen=True, slots=True)
class CheckedAdapter:
    """An adapter that this worker can serve exactly."""

    weights: "LoRAAdapter"
    style: PromptStyle
    """Chat templates, end tokens and sampling defaults of the adapter."""

    def named(self, name: str) -> "CheckedAdapter":
        """Return the same adapter under another name."""
        return replace(self, weights=self.weights.named(name))


class AdapterSource(Protocol):
    """Reads adapters from their sources. Every method blocks, and may run on any thread."""

    def read(self, name: str, source: str) -> CheckedAdapter:
        """Return the adapter at `source`, a folder or hub id.

        Raises:
            AdapterRejected: the adapter can't be served exactly.
        """
        ...

    def read_version(self, entry: Adapter) -> CheckedAdapter:
        """Read the adapter at exactly the version of the registry entry.

        The files are read from the adapter's source or from a stored copy.

        Raises:
            AdapterRejected: neither the source nor a copy has the version, or the version can't be
                served exactly.
        """
        ...

    def inspect(self, asked: Inspection) -> Findings:
        """Read and check an adapter that a client wants to load, and report on it. Never raises."""
        ...
