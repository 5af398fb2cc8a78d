"""Types of adapters that were read and checked, and of the objects that read them."""

from dataclasses import dataclass, replace
from typing import Generic, Protocol, Self, TypeVar

from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.inspections import Findings, Inspection
from worker.text.prompt_style import PromptStyle


class AdapterWeights(Protocol):
    """An adapter's weights in host memory, in the form that one kind of engine reads."""

    @property
    def name(self) -> str:
        """Name of the adapter."""

    @property
    def version(self) -> AdapterVersion:
        """Version of the adapter."""

    @property
    def source(self) -> str:
        """Folder, hub id or other place that the adapter was read from."""

    @property
    def num_bytes(self) -> int:
        """Size of the weights in bytes."""

    def named(self, name: str) -> Self:
        """Return the same adapter under another name."""

    def registry_entry(self, source: str) -> Adapter:
        """Return a registry entry for this adapter, with the current time as its creation time.

        `source` is the source under which every worker can find the adapter.
        """


WeightsT_co = TypeVar("WeightsT_co", bound=AdapterWeights, covariant=True)


@dataclass(frozen=True, slots=True)
class CheckedAdapter(Generic[WeightsT_co]):
    """An adapter that this worker can serve exactly."""

    weights: WeightsT_co
    style: PromptStyle
    """Chat templates, end tokens and sampling defaults of the adapter."""
    other_base: str | None = None
    """Base model that the adapter names, if it isn't the served one."""

    def named(self, name: str) -> "CheckedAdapter[WeightsT_co]":
        """Return the same adapter under another name."""
        return replace(self, weights=self.weights.named(name))

    def registry_entry(self, source: str) -> Adapter:
        """Return the registry entry of the weights, with the properties of the chat template."""
        return replace(
            self.weights.registry_entry(source),
            reasoning=self.style.reasoning,
            tool_form=self.style.tool_form,
            other_base=self.other_base,
        )


class AdapterSource(Protocol):
    """Reads adapters from their sources. Every method blocks, and may run on any thread."""

    def read(self, name: str, source: str) -> CheckedAdapter[AdapterWeights]:
        """Return the adapter at `source`. Raises AdapterRejected if it can't be served exactly."""

    def read_version(self, entry: Adapter) -> CheckedAdapter[AdapterWeights]:
        """Read the adapter at exactly the version of the registry entry.

        The files are read from the adapter's source or from a stored copy.

        Raises:
            AdapterRejected: neither the source nor a copy has the version, or the version can't be
                served exactly.
        """

    def inspect(self, asked: Inspection) -> Findings:
        """Read and check an adapter that a client wants to load, and report on it. Never raises."""
