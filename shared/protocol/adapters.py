"""Base model and adapters of a pool, as the registry stores them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shared.protocol.ids import AdapterVersion
from shared.protocol.tools import ToolForm


class AdapterState(StrEnum):
    """State of one adapter version. Only a READY version takes new jobs."""

    READY = "ready"
    """Its name refers to it."""
    QUARANTINED = "quarantined"
    """Several of its jobs killed their workers."""
    RETIRED = "retired"
    """Its name refers to other versions since; its jobs still run to their end."""
    UNLOADED = "unloaded"
    """Its name was unloaded; its jobs still run to their end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The base model that a pool serves."""

    name: str
    version: AdapterVersion
    max_model_len: int
    source: str
    created_s: int
    tool_form: ToolForm | None = None
    """Form of its tool calls; None if its chat template doesn't support tools."""
    max_token_bytes: int = 0
    """Most bytes of a prompt that one token can represent; 0 if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One version of an adapter: a name and one exact set of weights."""

    name: str
    version: AdapterVersion
    digest: str
    """All hex digits of the digest that `version` abbreviates."""
    weights_digest: str
    """Digest of the weights alone."""
    source: str
    """Folder or hub id."""
    rank: int
    """Largest rank of its modules."""
    num_bytes: int
    created_s: int
    state: AdapterState = AdapterState.READY


def decode_adapter(wire: Mapping[str, Any]) -> Adapter:
    """Return the adapter in a version's Redis hash or in a JSON object, from its decoded fields."""
    return Adapter(
        name=wire["name"],
        version=AdapterVersion(wire["version"]),
        digest=wire["digest"],
        weights_digest=wire["weights_digest"],
        source=wire["source"],
        rank=int(wire["rank"]),
        num_bytes=int(wire["num_bytes"]),
        created_s=int(wire["created_s"]),
        state=AdapterState(wire["state"]),
    )


def decode_base_model(wire: Mapping[str, str]) -> BaseModel:
    """Return the base model in the registry's Redis hash, from its decoded fields."""
    return BaseModel(
        name=wire["name"],
        version=AdapterVersion(wire["version"]),
        max_model_len=int(wire["max_model_len"]),
        source=wire["source"],
        created_s=int(wire["created_s"]),
        tool_form=ToolForm(wire["tool_form"]) if wire.get("tool_form") else None,
        max_token_bytes=int(wire.get("max_token_bytes", 0)),  # older workers don't write it
    )
