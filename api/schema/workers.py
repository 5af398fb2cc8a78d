"""Responses of /v1/workers, and of the routes that pause adapters."""

from typing import Literal

from api.schema.base import Body

Mode = Literal["serving", "paused", "draining"]


class WorkerBody(Body):
    """A worker after its state was set."""

    object: Literal["worker"] = "worker"
    id: str
    name: str
    """Short name of the worker."""
    state: Mode
    """paused: it gets no jobs, and finishes those that it has. draining: like paused, but
    jobs that haven't ended within the worker's --drain-s go to other workers."""


class AdapterPauseBody(Body):
    """An adapter after it was paused or resumed."""

    object: Literal["adapter"] = "adapter"
    id: str
    is_paused: bool
    """Whether the adapter is paused, so that its jobs wait in the queue."""
