"""Describes incidents of the pool for people."""

from typing import Any

from shared.protocol.ids import worker_name
from shared.store.views.incidents import Incident

_TEXTS = {
    "worker_joined": "worker {worker} joined",
    "worker_left": "worker {worker} left{jobs}",
    "worker_lost": "worker {worker} was lost{jobs}",
    "worker_stalled": "worker {worker} stalls: its engine doesn't finish a step",
    "front_end_joined": "front end {process} joined",
    "front_end_left": "front end {process} left",
    "front_end_lost": "front end {process} was lost: it hasn't reported for a minute",
    "control_joined": "control process {process} joined",
    "control_left": "control process {process} left",
    "control_lost": "control process {process} was lost: it hasn't reported for a minute",
    "redis_lost": "Redis stopped answering",
    "redis_back": "Redis answers again",
    "redis_restarted": "Redis was restarted, or another server took over",
    "adapter_load_failed": "{version} couldn't be loaded on worker {worker}: {reason}",
    "job_dead": "job {job} of {version} was given up: it killed its workers repeatedly",
    "adapter_quarantined": "{version} is quarantined: several of its jobs killed their workers",
    "adapter_released": "{version} was released from quarantine",
    "adapter_loaded": "{version} was loaded",
    "adapter_replaced": "{version} replaced the version before it",
    "adapter_candidate_set": "{version} is tried out: {reason}",
    "adapter_candidate_dropped": "{version} is no longer tried out",
    "adapter_rolled_back": "{version} is current again after a rollback",
    "adapter_unloaded": "{version} was unloaded",
}
"""Text of each kind of incident that the scripts of this release record."""


def incident_body(incident: Incident) -> dict[str, Any]:
    """Return an incident as it is sent to clients. Fields that don't apply are left out."""
    body: dict[str, Any] = {
        "id": incident.id,
        "time": incident.time_s,
        "kind": incident.kind,
        "text": text_of(incident),
        "worker": incident.worker,
        "adapter": incident.version,
        "job": incident.job,
        "jobs": incident.num_jobs,
        "process": incident.process,
        "subject": subject_of(incident),
    }
    return {name: value for name, value in body.items() if value is not None}


def subject_of(incident: Incident) -> str | None:
    """Return what the incident is about: a job, an adapter's version, a worker or a process."""
    worker = worker_name(incident.worker) if incident.worker else None
    return incident.job or incident.version or worker or incident.process


def process_name(process: str) -> str:
    """Return host and process id of a front end or control process."""
    return process.rpartition(":")[0] or process


def text_of(incident: Incident) -> str:
    """Return the text of an incident.

    If only a newer release knows the kind of incident, the text is the kind's name.
    """
    text = _TEXTS.get(incident.kind, incident.kind.replace("_", " "))
    return text.format(
        worker=incident.worker and worker_name(incident.worker),
        process=incident.process and process_name(incident.process),
        reason=incident.reason,
        version=incident.version,
        job=incident.job,
        jobs=_handed_over(incident.num_jobs),
    )


def _handed_over(num_jobs: int | None) -> str:
    if not num_jobs:
        return ""
    if num_jobs == 1:
        return ": its job goes to another worker"
    return f": its {num_jobs} jobs go to other workers"
