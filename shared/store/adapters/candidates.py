"""Candidates: versions that are tried out as a canary or shadow of an adapter's current version."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.refusals import conflict, not_kept, quarantine, without_candidate
from shared.store.redis.pool_store import PoolStore

SHADOW_TENANT = ".shadow"
"""Tenant of the copies that a shadow computes. No API key can have this name."""


class CandidateMode(StrEnum):
    """Mode of a candidate version."""

    CANARY = "canary"
    """It answers a share of the requests."""
    SHADOW = "shadow"
    """It computes copies of a share of the requests. Clients get the current version's answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The candidate of an adapter name, with its mode and its share of the requests."""

    version: AdapterVersion
    mode: CandidateMode
    percent: float
    """Share of the requests, from 0 to 100."""
    since_ms: int
    """Unix time in milliseconds at which the version became the candidate."""

    def takes(self, key: str) -> bool:
        """Return whether the candidate takes the requests with this key.

        If the share grows, the candidate keeps the keys that it has, and gets further ones. A
        different candidate gets a different selection of keys.
        """
        digest = hashlib.sha256(f"{self.version}\0{key}".encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:8]) < self.percent / 100 * 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The candidate version of an adapter."""

    adapter: Adapter
    share: Share


SHARE_FIELDS = ("candidate", "candidate_mode", "candidate_percent", "candidate_ms")
"""Fields that store a `Share` in the Redis hash of an adapter name, in the order of the attributes
of `Share`."""


def decode_share(values: Sequence[bytes | None]) -> Share | None:
    """Return the share in the values of `SHARE_FIELDS`, or None if the name has no candidate."""
    version, mode, percent, since_ms = ((raw or b"").decode() for raw in values)
    if not version:
        return None
    return Share(
        version=AdapterVersion(version),
        mode=CandidateMode(mode),
        percent=float(percent),
        since_ms=int(since_ms),
    )


class Candidates(PoolStore):
    """Changes the candidates of one pool's adapters. `Registry.add_candidate` registers new ones.

    In every method, `by` is the client that asks for the change, as the audit log shows it.
    """

    async def set(
        self,
        name: str,
        version: AdapterVersion | None,
        *,
        mode: CandidateMode,
        percent: float,
        by: str,
    ) -> AdapterVersion | None:
        """Set the mode and share of a name's candidate, and return the candidate's version.

        `version` is the present candidate, or a previous version that becomes the candidate
        instead. None means the present candidate. `percent` is the share of requests, from 0 to
        100. Returns None if the name isn't registered.

        Raises:
            JobFailed: the name has no candidate, `version` is current or isn't kept, or it is
                quarantined.
        """
        args = name, version or "", mode, f"{percent:g}", by
        match await self._scripts.run("set_candidate", *args):
            case [b"current"]:
                raise conflict(f"{version} is the current version of {name} already")
            case [b"not_kept", *kept]:
                raise not_kept(name, version, kept)
            case reply:
                return _version_in(reply, name)

    async def promote(
        self, name: str, version: AdapterVersion | None = None, *, by: str
    ) -> AdapterVersion | None:
        """Make the candidate of a name its current version, and return that version.

        The version that was current becomes the first previous one. Returns None if the name isn't
        registered.

        Raises:
            JobFailed: the name has no candidate, the candidate isn't `version`, or it is
                quarantined.
        """
        return await self._end(name, "promote", by, version)

    async def drop(
        self, name: str, version: AdapterVersion | None = None, *, by: str
    ) -> AdapterVersion | None:
        """End the trial of a name's candidate, and return the candidate's version.

        Accepted jobs of the candidate end normally. Returns None if the name isn't registered.

        Raises:
            JobFailed: the name has no candidate, or the candidate isn't `version`.
        """
        return await self._end(name, "drop", by, version)

    async def _end(
        self, name: str, how: str, by: str, version: AdapterVersion | None
    ) -> AdapterVersion | None:
        reply = await self._scripts.run("end_candidate", name, how, by, version or "")
        if reply[0] == b"other":
            raise conflict(f"the candidate of {name} is {reply[1].decode()} now")
        return _version_in(reply, name)


def _version_in(reply: Sequence[bytes], name: str) -> AdapterVersion | None:
    """Return the candidate version that a script replied, or None if the name isn't registered."""
    match reply:
        case [b"ok", candidate]:
            return AdapterVersion(candidate.decode())
        case [b"none"]:
            raise without_candidate(name)
        case [b"quarantined", candidate]:
            raise conflict(quarantine(candidate.decode()))
    return None
