"""Base model and adapters of a pool, in the form that the registry stores.

The names of the fields are those of the Redis hashes, which processes of earlier and later releases
also read and write.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.protocol.capabilities import AdapterKind, Needs, decode_kinds
from shared.protocol.ids import AdapterVersion
from shared.protocol.known_fields import Forms, known_fields
from shared.protocol.tools import ToolForm
from shared.reasoning_form import ReasoningForm


class AdapterState(StrEnum):
    """State of one adapter version. Only READY versions take new jobs."""

    READY = "ready"
    """The adapter's name refers to this version, or can be rolled back to it."""
    QUARANTINED = "quarantined"
    """Several jobs of this version in a row killed their workers."""
    RETIRED = "retired"
    """Other versions have replaced this version. Its remaining jobs run to their end."""
    UNLOADED = "unloaded"
    """The adapter's name was unloaded. Remaining jobs of this version run to their end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The base model that a pool serves."""

    name: str
    version: AdapterVersion
    max_model_len: int
    source: str
    created_s: int
    tool_form: ToolForm | None = None
    """Format of the model's tool calls; None if its chat template doesn't support tools."""
    max_token_bytes: int = 0
    """Maximum number of prompt bytes that one token can represent; 0 if unknown."""
    embedding_size: int = 0
    """Number of values of an embedding; 0 if the model's workers compute none."""
    reasoning: ReasoningForm | None = None
    """Form of the model's reasoning; None if answers have no reasoning part."""
    takes_images: bool = False
    """Whether the model reads images. Even if it does, not every worker has to serve images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One version of an adapter: a name and one exact set of weights."""

    name: str
    version: AdapterVersion
    digest: str
    """Hex digest of the adapter's weights and prompt files. `version` contains the first 12
    digits."""
    weights_digest: str
    """Hex digest of the adapter's weights alone."""
    source: str
    """Folder, hub id, URL or upload from which the adapter is loaded."""
    rank: int
    """Largest LoRA rank of the adapter's modules."""
    num_bytes: int
    created_s: int
    kinds: frozenset[AdapterKind] = frozenset()
    """The adapter's parts other than plain LoRA."""
    state: AdapterState = AdapterState.READY
    reasoning: ReasoningForm | None = None
    """Form of the reasoning, as in `BaseModel`. The chat template that the adapter uses defines
    it."""
    tool_form: ToolForm | None = None
    """Format of tool calls in the adapter's own chat template; None without such a template."""
    other_base: str | None = None
    """Name of the base model in the adapter's configuration, if it differs from the served base
    model. The adapter's shapes nevertheless fit the served one."""

    @property
    def needs(self) -> Needs:
        """Capabilities that every job of the version needs."""
        return Needs(kinds=self.kinds, rank=self.rank)


def fingerprint_of(base: BaseModel, version: AdapterVersion) -> str:
    """Return the `system_fingerprint` of answers by `version` on the base model `base`."""
    versions = [base.version] if version == base.version else [base.version, version]
    return "_".join(["fp", *(v.rpartition("@")[2] for v in versions)])


def own_name(model: str, base: BaseModel | None) -> str:
    """Return the name of the adapter or base model that `model` in a request may refer to.

    Requests refer to an adapter by `name`, `base:name` or `name@digest12`. Adapter names contain
    neither `:` nor `@`. `base:` isn't checked: it may name another base model.
    """
    if base is not None and model in (base.name, base.version):
        return base.name
    return model.rpartition(":")[2].partition("@")[0]


def decode_adapter(wire: Mapping[str, Any]) -> Adapter:
    """Return the adapter with the fields in `wire`, a decoded Redis hash or JSON object."""
    numbers = dict.fromkeys(("rank", "num_bytes", "created_s"), int)
    forms: Forms = {"kinds": _kinds, "state": AdapterState, "reasoning": _reasoning}
    forms |= {"tool_form": _tool_form, "other_base": _other_base}
    return Adapter(**known_fields(Adapter, wire, **numbers, **forms))


def decode_base_model(wire: Mapping[str, str]) -> BaseModel:
    """Return the base model with the fields in `wire`, a decoded Redis hash."""
    names = ("max_model_len", "created_s", "max_token_bytes", "embedding_size")
    numbers = dict.fromkeys(names, int)
    forms: Forms = {"reasoning": _reasoning, "tool_form": _tool_form}
    forms["takes_images"] = lambda flag: flag == "1"
    return BaseModel(**known_fields(BaseModel, wire, **numbers, **forms))


def _kinds(kinds: str | list[str]) -> frozenset[AdapterKind]:
    """Return the kinds of an adapter: Redis has them as text, and JSON as a list."""
    return decode_kinds(kinds if isinstance(kinds, str) else ",".join(kinds))


def _reasoning(form: str) -> ReasoningForm | None:
    return ReasoningForm(form) if form else None


def _other_base(name: str) -> str | None:
    return name or None


def _tool_form(form: str) -> ToolForm | None:
    """Return the form of tool calls, or None if there is none or only a newer release knows it."""
    return ToolForm(form) if form in set(ToolForm) else None
