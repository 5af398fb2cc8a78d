"""Requests of other APIs, in the form of chat requests. Pure.

`api/messages/translate.py` and `api/responses/translate.py` create them.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel

from api.requests.ignored_fields import OtherFields
from api.requests.object_kinds import Kinds, unknown_in, unused_in
from api.requests.translate import Admission, chat_job, parse_chat
from api.requests.unknown_fields import UnknownField, field_names, unknown_fields
from api.requests.unsupported_fields import CHAT
from api.schema.base import RequestModel
from api.schema.chat import ChatCompletionRequest
from shared.errors import JobFailed
from shared.protocol.jobs import Job, View

T = TypeVar("T")
CHAT_FIELDS = frozenset(field_names(ChatCompletionRequest))
_IMAGE = re.compile(r"messages\[(\d+)\]\.content\[(\d+)\]\.image_url\.url")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedRequest:
    """Request of another API, in the form of a chat request."""

    chat: dict[str, Any]
    """Body of the request to /v1/chat/completions that asks for the same answer."""
    view: View
    """API of the request."""
    request: dict[str, Any] | None = None
    """Value of `Job.request`."""
    names: Mapping[str, str]
    """For each regular expression of a path in `chat`, the path in the request. Errors name the
    path in the request."""
    images: tuple[str, ...] = ()
    """Paths of the request's images. They are the last images of `chat`, in the same order."""
    ignored: tuple[str, ...] = ()
    """Paths of the request's known fields that have no effect and aren't in `chat`."""
    unknown: tuple[UnknownField, ...] = ()
    """Unknown fields of the request that aren't in `chat`."""

    @property
    def others(self) -> OtherFields:
        """The request's fields that aren't in `chat`."""
        return OtherFields(ignored=self.ignored, unknown=self.unknown, renamed=self._renamed)

    def parse(self) -> ChatCompletionRequest:
        """Validate `chat`, and return it as a chat request.

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
        if (found := _IMAGE.fullmatch(param)) and (path := self._image(*map(int, found.groups()))):
            return path
        for pattern, name in self.names.items():
            if found := re.match(pattern, param):
                return found.expand(name) + param[found.end() :]
        return param

    def _image(self, message: int, part: int) -> str | None:
        """Return the path of an image of `chat`, or None if the request doesn't contain it."""
        places = [
            (i, j)
            for i, each in enumerate(self.chat["messages"])
            for j, content in enumerate(each.get("content") or ())
            if isinstance(content, Mapping) and content.get("type") == "image_url"
        ]
        number = places.index((message, part)) - len(places) + len(self.images)
        return self.images[number] if number >= 0 else None


def image_paths(value: Any, path: str, kind: str) -> Iterator[str]:
    """Yield the paths of the parts of type `kind` in the messages `value` at `path`, in order."""
    if isinstance(value, list):
        for i, each in enumerate(value):
            yield from image_paths(each, f"{path}[{i}]", kind)
    elif isinstance(value, dict):
        if value.get("type") == kind:
            yield path
        for name in ("content", "output"):
            yield from image_paths(value.get(name), f"{path}.{name}", kind)


def chat_extras(request: RequestModel) -> dict[str, Any]:
    """Return the fields of a request that only chat requests define, and not the request's own API.

    This includes fields that chat requests define only in order to refuse them.
    """
    extra = request.model_extra or {}
    return {name: value for name, value in extra.items() if name in CHAT_FIELDS or name in CHAT}


def unknown_in_view(
    request: RequestModel,
    model: type[BaseModel],
    unsupported: Collection[str],
    objects: Mapping[str, Kinds],
) -> Iterator[UnknownField]:
    """Yield the unknown fields of another API's request, at any depth.

    Known are the fields of `model`, the class of all the API's fields, and the fields of chat
    requests. `unsupported` names are never suggested in place of a misspelt name. For each field
    that no pydantic class validates, `objects` has the kinds of the objects in it.
    """
    known = {*field_names(model), *CHAT_FIELDS}
    suggested = tuple(sorted(known.difference(unsupported)))
    for field in unknown_fields(request):
        if field.prefix:
            yield field
        elif field.name not in known and field.name not in CHAT:
            yield field._replace(known=suggested)
    for name, kinds in objects.items():
        yield from unknown_in(getattr(request, name), name, kinds)


def unused_in_view(request: RequestModel, objects: Mapping[str, Kinds]) -> Iterator[str]:
    """Yield the paths of the unused fields in the objects that no pydantic class validates."""
    for name, kinds in objects.items():
        yield from unused_in(getattr(request, name), name, kinds)


def fields_of_answers(model: type[BaseModel], prompt_extras: Collection[str]) -> frozenset[str]:
    """Return the names of the fields that don't change the prompt of another API's request.

    `model` is the class of all the API's fields. `prompt_extras` are the fields of chat requests
    that change a prompt.
    """
    return frozenset({*CHAT_FIELDS, *field_names(model)}.difference(prompt_extras))
