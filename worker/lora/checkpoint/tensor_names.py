"""The names that PEFT gives to the tensors of an adapter's file."""

import re
from enum import StrEnum
from typing import NamedTuple


class Part(StrEnum):
    """What a tensor is to its module; the value is the end of its name in the file."""

    LORA_A = "lora_A.weight"
    LORA_B = "lora_B.weight"
    LORA_B_BIAS = "lora_B.bias"
    MAGNITUDE = "lora_magnitude_vector"
    """DoRA's length of each row of the weight."""
    EMBEDDING_A = "lora_embedding_A"
    EMBEDDING_B = "lora_embedding_B"
    BASE_WEIGHT = "base_layer.weight"
    """Of a targeted embedding or head: PEFT adds it to the file."""
    BASE_BIAS = "base_layer.bias"
    """The bias of a targeted module, trained with it."""
    TOKENS = "token_adapter.trainable_tokens_delta"
    """Rows of an embedding or a head."""
    WEIGHT = "weight"
    """Of a module that was trained whole."""
    BIAS = "bias"
    """Of a module that isn't targeted, trained all the same."""


class TensorKey(NamedTuple):
    """Which tensor of which module."""

    module: str
    part: Part

    def __str__(self) -> str:
        """The tensor's name as PEFT writes it."""
        return f"base_model.model.{self.module}.{self.part}"


# Some writers put the adapter's name behind `lora_A` and the like; DoRA's vector was once a
# parameter, and then a module with a weight.
_NAME = re.compile(
    r"base_model\.model\.(?P<module>.+?)\.(?:"
    r"(?P<lora>lora_[AB])(?:\.[^.]+)?(?P<kind>\.weight|\.bias)"
    r"|(?P<embedding>lora_embedding_[AB])(?:\.[^.]+)?"
    r"|(?P<tokens>token_adapter\.trainable_tokens_delta)(?:\.[^.]+)?"
    r"|(?P<vector>lora_magnitude_vector)(?:\.[^.]+)?(?:\.weight)?"
    r"|(?P<plain>(?:base_layer\.)?(?:weight|bias)))"
)


def parse_name(name: str) -> TensorKey | None:
    """What the tensor `name` of a file is; None if it is nothing that is known."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    lora = match["lora"] and match["lora"] + match["kind"]
    part = lora or match["embedding"] or match["tokens"] or match["vector"] or match["plain"]
    return TensorKey(match["module"], Part(part)) if part in set(Part) else None
