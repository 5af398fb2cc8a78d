"""/v1/models: what is returned."""

from typing import Literal

from pydantic import BaseModel, Field


class ModelCard(BaseModel):
    """One name that the `model` field of a request can have."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["lorikeet"] = "lorikeet"
    root: str = Field(description="where an adapter's weights come from; a base model's own id")
    parent: str | None = Field(description="an adapter's base model")


class ModelList(BaseModel):
    """Everything that is served: the base model first, then the adapters by name."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
