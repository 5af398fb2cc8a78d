"""An output with a schema, which a model with random weights must follow. Needs pydantic."""

from typing import Literal

from pydantic import BaseModel


class Move(BaseModel):
    where: Literal["left", "right"]
    far: bool
