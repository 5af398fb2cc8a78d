"""Requests of other APIs, in the form of chat requests. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from api.requests.translate import Admission, chat_job, parse_chat
from api.schema.chat import ChatCompletionRequest
from shared.errors import JobFailed
from shared.protocol.jobs import Job, View

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedRequest:
    """Request of another API, in the form of a chat request."""

    chat: dict[str, Any]
    """Body of a request to /v1/chat/completions for the same answer."""
    view: View
    """API of the request."""
    request: dict[str, Any] | None = None
    """`request` of the job."""
    names: Mapping[str, str]
    """For regular expressions of fields' paths in `chat`, the paths in the request. Errors name the
    latter."""
    ignored: tuple[str, ...] = ()
    """Paths of the request's fields that have no effect and aren't in `chat`."""

    def parse(self, _: Mapping[str, Any]) -> ChatCompletionRequest:
        """Validate the chat request, and return it.

        Raises:
            JobFailed: a field is invalid or unsupported. The error names the field.
        """
        return self._renaming(lambda: parse_chat(self.chat))

    def job(self, request: ChatCompletionRequest, admission: Admission) -> Job:
        """Return the job that answers the request.

        Raises:
            JobFailed: as `chat_job`.
        """
        job = self._renaming(lambda: chat_job(request, admission))
        return replace(job, view=self.view, request=self.request)

    def _renaming(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except JobFailed as failure:
            error = failure.error
            if error.param is None:
                raise
            param = self._renamed(error.param)
            message = error.message.replace(error.param, param)
            raise JobFailed(replace(error, message=message, param=param)) from None

    def _renamed(self, param: str) -> str:
        for pattern, name in self.names.items():
            if found := re.match(pattern, param):
                return found.expand(name) + param[found.end() :]
        return param
