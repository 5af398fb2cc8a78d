"""Responses of /v1/models."""

from typing import Literal

from pydantic import Field

from api.schema.base import Body


class ModelCard(Body):
    """One model that requests can name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["lorikeet"] = "lorikeet"
    root: str = Field(description="Source of an adapter's weights. For the base model, its own id.")
    parent: str | None = Field(description="For an adapter, the name of the base model.")
    max_model_len: int = Field(description="Context length in tokens: prompt and answer together.")
    permission: list[str] = Field(default=[], max_length=0)
    """Always empty; older clients need the field."""


class ModelList(Body):
    """All models: the base model first, then the adapters, sorted by name."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
