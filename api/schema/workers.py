"""Responses of /v1/workers, and of the routes that pause adapters."""

from typing import Literal

from api.schema.base import Body

Mode = Literal["serving", "paused", "draining"]


class WorkerBody(Body):
    """A worker after a change."""

    object: Literal["worker"] = "worker"
    id: str
    name: str
    """Short name of the worker."""
    state: Mode
    """paused: it gets no jobs, and finishes those that it has. draining: as paused, but other
    workers get the jobs that haven't ended within its --drain-s."""


class AdapterPauseBody(Body):
    """An adapter after a change."""

    object: Literal["adapter"] = "adapter"
    id: str
    is_paused: bool
    """Whether its jobs wait in the queue."""
