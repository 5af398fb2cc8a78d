"""Chooses adapters that stop taking jobs, so that waiting adapters can load. Policy only.

Adapters that always have jobs would never release their memory. Therefore, when a version finds no
device memory, one of the versions in use must yield. The yielding version gets no new jobs until
its own last job has ended and another version was loaded.
"""

from collections.abc import Collection, Mapping

from shared.protocol.ids import AdapterVersion


def versions_in_use(
    jobs: Mapping[AdapterVersion, int], wanted: AdapterVersion
) -> set[AdapterVersion]:
    """Return the versions with jobs, except `wanted`, the version that found no memory."""
    return {version for version, number in jobs.items() if number and version != wanted}


def version_to_yield(
    jobs: Mapping[AdapterVersion, int],
    in_use: Collection[AdapterVersion],
    yielding: Collection[AdapterVersion],
    *,
    is_first_shortage: bool,
) -> AdapterVersion | None:
    """Return the version that must yield next: the version in use with the fewest jobs.

    Return None if no other version can yield. At a repeated shortage, also return None while a
    version in use is yielding: the waiting version waits for that one. `jobs` has the running jobs
    by resident version. The versions `in_use` keep their memory until their jobs have ended.
    """
    candidates = [version for version in jobs if version in in_use and version not in yielding]
    is_awaited = any(version in in_use for version in yielding)
    if not candidates or (is_awaited and not is_first_shortage):
        return None
    return min(candidates, key=jobs.__getitem__)


def may_be_free(in_use: Collection[AdapterVersion], jobs: Mapping[AdapterVersion, int]) -> bool:
    """Return whether the end of a job may have freed device memory.

    This is true if `in_use` is empty, or if one of these versions has no running job in `jobs`.
    """
    return not in_use or any(not jobs.get(version) for version in in_use)
