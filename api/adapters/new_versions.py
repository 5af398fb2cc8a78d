"""Registers new versions of adapters that a worker has checked."""

from api.access.model_rights import ModelNotFound
from shared.protocol.adapters import Adapter
from shared.store.adapters.candidates import CandidateMode
from shared.store.adapters.registry import Registry


class NewVersions:
    """Registers versions in one pool. The pool keeps `keep_versions` earlier ones for rollbacks."""

    def __init__(self, registry: Registry, *, keep_versions: int) -> None:
        self._registry = registry
        self._keep_versions = keep_versions

    async def load(self, adapter: Adapter, *, replace: bool, by: str) -> None:
        """Make an adapter the current version of its name. Without `replace`, the name must be new.

        The audit log names `by` as the author of the change.

        Raises:
            JobFailed: as in `Registry.load_adapter`.
            RedisUnavailable: the registry can't be changed.
        """
        await self._registry.load_adapter(
            adapter, replace=replace, keep_versions=self._keep_versions, by=by
        )

    async def add_candidate(
        self,
        adapter: Adapter,
        *,
        by: str,
        mode: CandidateMode = CandidateMode.CANARY,
        percent: float | None = None,
    ) -> None:
        """Register an adapter as the candidate of its name, with a share of the requests.

        Without `percent`, a new candidate gets no requests yet.

        Raises:
            JobFailed: the name isn't registered, or as in `Registry.add_candidate`.
            RedisUnavailable: the registry can't be changed.
        """
        if not await self._registry.add_candidate(
            adapter, keep_versions=self._keep_versions, by=by, mode=mode, percent=percent
        ):
            raise ModelNotFound(adapter.name)
