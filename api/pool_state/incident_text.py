"""Describes incidents of the pool for people."""

from typing import Any

from shared.store.views.incidents import Incident

_TEXTS = {
    "worker_joined": "worker {worker} joined",
    "worker_left": "worker {worker} left{jobs}",
    "worker_lost": "worker {worker} was lost{jobs}",
    "worker_stalled": "worker {worker} stalls: its engine doesn't finish a step",
    "job_dead": "job {job} of {version} was given up: it killed its workers repeatedly",
    "adapter_quarantined": "{version} is quarantined: several of its jobs killed their workers",
    "adapter_released": "{version} was released from quarantine",
    "adapter_loaded": "{version} was loaded",
    "adapter_replaced": "{version} replaced the version before it",
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
        "text": _text(incident),
        "worker": incident.worker,
        "adapter": incident.version,
        "job": incident.job,
        "jobs": incident.num_jobs,
    }
    return {name: value for name, value in body.items() if value is not None}


def _text(incident: Incident) -> str:
    """Return the text of an incident. The text for a kind of a newer release is the kind's name."""
    text = _TEXTS.get(incident.kind, incident.kind.replace("_", " "))
    return text.format(
        worker=incident.worker,
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
