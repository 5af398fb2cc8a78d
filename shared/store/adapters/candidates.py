"""Candidate versions of adapter names: which one is tried out, and how its trial ends."""

from shared.errors import JobFailed
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.refusals import conflict, not_kept, quarantine
from shared.store.adapters.share import CandidateMode
from shared.store.redis.pool_store import PoolStore


class Candidates(PoolStore):
    """Changes the candidates of one pool's adapters. `Registry.add_candidate` registers new ones.

    In every method, `by` is who asks for the change, for the audit log.
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
        """Set what a name's candidate does, and return its version.

        `version` is one of the previous versions, or the present candidate; None for the latter.
        It replaces another candidate. `percent` is the share of requests, from 0 to 100. Returns
        None if the name isn't registered.

        Raises:
            JobFailed: the name has no candidate, `version` is current or isn't kept, or it is
                quarantined.
        """
        args = name, version or "", mode, f"{percent:g}", by
        match await self._scripts.run("set_candidate", *args):
            case [b"ok", candidate]:
                return AdapterVersion(candidate.decode())
            case [b"none"]:
                raise JobFailed(conflict(_without_candidate(name)))
            case [b"current"]:
                raise JobFailed(conflict(f"{version} is the current version of {name} already"))
            case [b"not_kept", *kept]:
                raise JobFailed(not_kept(name, version, [raw.decode() for raw in kept]))
            case [b"quarantined", candidate]:
                raise JobFailed(conflict(quarantine(candidate.decode())))
        return None

    async def promote(
        self, name: str, version: AdapterVersion | None = None, *, by: str
    ) -> AdapterVersion | None:
        """Make the candidate of a name its current version, and return it.

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
        """End the trial of a name's candidate, and return its version.

        Its accepted jobs end normally. Returns None if the name isn't registered.

        Raises:
            JobFailed: the name has no candidate, or the candidate isn't `version`.
        """
        return await self._end(name, "drop", by, version)

    async def _end(
        self, name: str, how: str, by: str, version: AdapterVersion | None
    ) -> AdapterVersion | None:
        match await self._scripts.run("end_candidate", name, how, by, version or ""):
            case [b"ok", found]:
                return AdapterVersion(found.decode())
            case [b"none"]:
                raise JobFailed(conflict(_without_candidate(name)))
            case [b"other", found]:
                raise JobFailed(conflict(f"the candidate of {name} is {found.decode()} now"))
            case [b"quarantined", found]:
                raise JobFailed(conflict(quarantine(found.decode())))
        return None


def _without_candidate(name: str) -> str:
    return f"adapter {name} has no candidate version"
