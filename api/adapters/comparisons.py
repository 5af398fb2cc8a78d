"""Describes how a candidate's requests and answers compare with the current version's."""

from dataclasses import asdict

from api.access.own_job import own_job
from api.schema.adapter_versions import Agreement, ComparedUsage, DifferingPair
from shared.errors import JobFailed
from shared.protocol.access.rights import Access, Scope
from shared.protocol.ids import AdapterVersion, JobId
from shared.store.adapters.adapter_views import VersionView
from shared.store.adapters.shadows import Comparison, PairReport, Shadows
from shared.store.views.pool_views import PoolViews

MAX_PAIRS = 20
MAX_CHARS = 2000
"""Maximum number of characters of an answer that are shown."""


def agreement(found: Comparison) -> Agreement:
    """Return the summary of how similar the answers of a candidate and the current version are."""
    return Agreement(
        pairs=found.pairs,
        equal=found.equal,
        failed=found.failed,
        similarity=found.similarity / found.pairs if found.pairs else None,
        tokens=found.tokens,
        candidate_tokens=found.candidate_tokens,
    )


def compared_usage(view: VersionView) -> ComparedUsage:
    """Return the usage of a version since the candidate was set."""
    return ComparedUsage(version=view.adapter.version, **asdict(view.compared_usage))


async def differing_pairs(
    shadows: Shadows, views: PoolViews, access: Access, version: AdapterVersion
) -> list[DifferingPair]:
    """Return the newest requests that a candidate and the current version answered differently.

    The texts are included only if the client may read the job of the request: its key must belong
    to the job's tenant and have the scope `inference`.
    """
    reports = await shadows.differing(version, MAX_PAIRS)
    return [await _pair(views, access, report) for report in reports]


async def _pair(views: PoolViews, access: Access, report: PairReport) -> DifferingPair:
    may_read = await _may_read(views, access, report.original)
    return DifferingPair(
        job=report.original,
        copy_job=report.copy,
        similarity=report.similarity,
        error=report.error,
        current_text=await _text(views, report.original) if may_read else None,
        candidate_text=await _text(views, report.copy) if may_read else None,
    )


async def _may_read(views: PoolViews, access: Access, job: JobId) -> bool:
    if Scope.INFERENCE not in access.scopes:
        return False
    try:
        await own_job(views, access, job)
    except JobFailed:
        return False
    return True


async def _text(views: PoolViews, job: JobId) -> str | None:
    """Return the beginning of a job's first answer, or None if the job has no stored answer."""
    _, result = await views.job_and_result(job)
    return result.choices[0].text[:MAX_CHARS] if result and result.choices else None
