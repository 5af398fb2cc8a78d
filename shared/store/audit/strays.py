"""Strays: keys without an owner or a lifetime."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Stray:
    """A key, or a member of a key, that breaks the rule of its kind."""

    key: str
    kind: str
    """Kind of the key: the word after the pool's prefix."""
    member: str
    """Member of a set or sorted set, or field of a hash; empty if the key itself is the stray."""
    reason: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of an audit."""

    num_keys: int
    """Number of checked keys."""
    strays: Sequence[Stray]
