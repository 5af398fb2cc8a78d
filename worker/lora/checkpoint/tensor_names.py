"""Parses the names that PEFT gives to an adapter's tensors. Pure."""

import re
from enum import StrEnum
from typing import NamedTuple

MAX_DOTS = 32
"""Maximum number of dots in a name that is parsed, because each dot takes parsing time."""


class TensorRole(StrEnum):
    """Role of a tensor in its module. The value is the suffix of the tensor's name."""

    LORA_A = "lora_A.weight"
    LORA_B = "lora_B.weight"
    LORA_B_BIAS = "lora_B.bias"
    MAGNITUDE = "lora_magnitude_vector"
    """DoRA's magnitudes: the trained length of each row of the weight."""
    EMBEDDING_A = "lora_embedding_A"
    EMBEDDING_B = "lora_embedding_B"
    BASE_WEIGHT = "base_layer.weight"
    """Copy of the weight of a targeted embedding or head. PEFT doesn't always save such a copy."""
    BASE_BIAS = "base_layer.bias"
    """Trained bias of a targeted module."""
    TOKENS = "token_adapter.trainable_tokens_delta"
    """Trained rows of an embedding or a head."""
    WEIGHT = "weight"
    """Weight of a module that was trained in full."""
    BIAS = "bias"
    """Trained bias of a module that isn't targeted."""


class TensorKey(NamedTuple):
    """Module and role of a tensor."""

    module: str
    role: TensorRole

    def __str__(self) -> str:
        """Return the tensor's name as PEFT writes it."""
        return f"base_model.model.{self.module}.{self.role}"


# Some tools insert the adapter's name after `lora_A` and similar parts. DoRA's vector is a plain
# parameter in old versions of PEFT, and a module with a weight in newer versions.
_NAME = re.compile(
    r"base_model\.model\.(?P<module>.+?)\.(?:"
    r"(?P<lora>lora_[AB])(?:\.[^.]+)?(?P<kind>\.weight|\.bias)"
    r"|(?P<embedding>lora_embedding_[AB])(?:\.[^.]+)?"
    r"|(?P<tokens>token_adapter\.trainable_tokens_delta)(?:\.[^.]+)?"
    r"|(?P<vector>lora_magnitude_vector)(?:\.[^.]+)?(?:\.weight)?"
    r"|(?P<plain>(?:base_layer\.)?(?:weight|bias)))"
)


_ROLES = frozenset(TensorRole)


def parse_name(name: str) -> TensorKey | None:
    """Return the module and role of the tensor `name`.

    Returns None if `name` isn't in the form that PEFT writes.
    """
    match = _NAME.fullmatch(name) if name.count(".") <= MAX_DOTS else None
    if match is None:
        return None
    lora = match["lora"] and match["lora"] + match["kind"]
    role = lora or match["embedding"] or match["tokens"] or match["vector"] or match["plain"]
    return TensorKey(match["module"], TensorRole(role)) if role in _ROLES else None
