"""Candidate versions: versions of an adapter that are tried out beside the current one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion

SHADOW_TENANT = ".shadow"
"""Tenant of the copies that a shadow computes. No API key can have this name."""


class CandidateMode(StrEnum):
    """What a candidate version does."""

    CANARY = "canary"
    """It answers a share of the requests."""
    SHADOW = "shadow"
    """It computes copies of a share of the requests. Clients get the current version's answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which version is the candidate of a name, what it does, and for how many requests."""

    version: AdapterVersion
    mode: CandidateMode
    percent: float
    """Share of the requests, from 0 to 100."""
    since_ms: int
    """Unix time in milliseconds at which the version became the candidate."""

    def takes(self, key: str) -> bool:
        """Return whether the candidate takes the requests with this key.

        The same keys stay with the candidate while its share grows. Another candidate gets others.
        """
        digest = hashlib.sha256(f"{self.version}\0{key}".encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:8]) < self.percent / 100 * 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The candidate version of an adapter."""

    adapter: Adapter
    share: Share


FIELDS = ("candidate", "candidate_mode", "candidate_percent", "candidate_ms")
"""Fields of an adapter name's hash that hold a `Share`, in the order of its own fields."""


def decode_share(values: Sequence[bytes | None]) -> Share | None:
    """Return the share in the values of `FIELDS`, or None if the name has no candidate."""
    version, mode, percent, since_ms = ((raw or b"").decode() for raw in values)
    if not version:
        return None
    return Share(
        version=AdapterVersion(version),
        mode=CandidateMode(mode),
        percent=float(percent),
        since_ms=int(since_ms),
    )
