"""Requests of other APIs, in the form of OpenAI's requests. Pure.

`api/messages/translate.py`, `api/responses/translate.py`, `api/generate/translate.py` and
`api/ollama/` create them.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel

from api.requests.aliases import ALIASES
from api.requests.embeddings import embedding_job, parse_embedding
from api.requests.ignored_fields import OtherFields
from api.requests.object_kinds import Kinds, unknown_in, unused_in
from api.requests.translate import Admission, chat_job, completion_job, parse_chat, parse_completion
from api.requests.unknown_fields import UnknownField, field_names, unknown_fields
from api.requests.unsupported_fields import CHAT
from api.schema.base import JobRequest, RequestModel
from api.schema.chat import ChatCompletionRequest
from shared.errors import JobFailed
from shared.protocol.jobs import Endpoint, Job, View

T = TypeVar("T")
Parse = Callable[[Mapping[str, Any]], Any]
"""Validates a body, and returns it as a request."""
JobOf = Callable[[Any, Admission], Job]
"""Makes a job of a request."""
_STEPS: Mapping[Endpoint, tuple[Parse, JobOf]] = {
    Endpoint.CHAT: (parse_chat, chat_job),
    # Only OpenAI's completions are short by default.
    Endpoint.COMPLETIONS: (parse_completion, partial(completion_job, default_max_tokens=None)),
    Endpoint.EMBEDDINGS: (parse_embedding, embedding_job),
}
CHAT_FIELDS = frozenset(field_names(ChatCompletionRequest))
_OF_CHAT = CHAT_FIELDS | CHAT.keys() | ALIASES.keys()
"""Names of the fields that chat requests know, including fields that they refuse."""
_IMAGE = re.compile(r"messages\[(\d+)\]\.content\[(\d+)\]\.image_url\.url")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedRequest:
    """Request of another API, in the form of a request to one of OpenAI's endpoints."""

    body: dict[str, Any]
    """Body of a request to `endpoint` that asks for the same answer."""
    endpoint: Endpoint = Endpoint.CHAT
    view: View
    """API that the client used."""
    request: dict[str, Any] | None = None
    """Value for `Job.request` of the request's job."""
    names: Mapping[str, str]
    """For each regular expression of a path in `body`, the matching path in the original request.
    Error messages name the path in the original request."""
    images: tuple[str, ...] = ()
    """Paths of the images in the original request. The last images of `body` are these images, in
    the same order."""
    ignored: tuple[str, ...] = ()
    """Paths of known fields of the original request that have no effect and aren't in `body`."""
    unknown: tuple[UnknownField, ...] = ()
    """Unknown fields of the original request that aren't in `body`."""
    check: Callable[[Admission], None] | None = None
    """Function that raises `JobFailed` if the model can't serve the request as its API demands."""
    refine: Callable[[Job], Job] | None = None
    """Function that adds options to the job. No request to `endpoint` can set these options."""

    @property
    def others(self) -> OtherFields:
        """Fields of the original request that aren't in `body`."""
        return OtherFields(ignored=self.ignored, unknown=self.unknown, renamed=self._renamed)

    def parse(self) -> JobRequest:
        """Validate `body`, and return it as a request to `endpoint`.

        Raises:
            JobFailed: a field is invalid or unsupported. The error names the field.
        """
        parse, _ = _STEPS[self.endpoint]
        request: JobRequest = self._renaming(lambda: parse(self.body))
        return request

    def job(self, request: JobRequest, admission: Admission) -> Job:
        """Return the job that answers `request`, the result of `parse`.

        Raises:
            JobFailed: the model can't serve the request, or no job can be made of a request to
                `endpoint`.
        """
        if self.check:
            self.check(admission)
        _, job_of = _STEPS[self.endpoint]
        job = self._renaming(lambda: job_of(request, admission))
        job = replace(job, view=self.view, request=self.request)
        return self.refine(job) if self.refine else job

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
        """Return the original path of an image; None if only `body` has the image."""
        places = [
            (i, j)
            for i, each in enumerate(self.body["messages"])
            for j, content in enumerate(each.get("content") or ())
            if isinstance(content, Mapping) and content.get("type") == "image_url"
        ]
        number = places.index((message, part)) - len(places) + len(self.images)
        return self.images[number] if number >= 0 else None


def image_paths(value: Any, path: str, kind: str) -> Iterator[str]:
    """Yield the paths of the parts of type `kind` in `value`, the messages at `path`, in order."""
    if isinstance(value, list):
        for i, each in enumerate(value):
            yield from image_paths(each, f"{path}[{i}]", kind)
    elif isinstance(value, dict):
        if value.get("type") == kind:
            yield path
        for name in ("content", "output"):
            yield from image_paths(value.get(name), f"{path}.{name}", kind)


def chat_extras(request: RequestModel) -> dict[str, Any]:
    """Return the fields of `request` that chat requests define and its own API doesn't define.

    These include fields that chat requests define only in order to refuse them.
    """
    extra = request.model_extra or {}
    return {name: value for name, value in extra.items() if name in _OF_CHAT}


def unknown_in_view(
    request: RequestModel,
    model: type[BaseModel],
    unsupported: Collection[str],
    objects: Mapping[str, Kinds],
) -> Iterator[UnknownField]:
    """Yield the unknown fields, at any depth, of a request to an API other than OpenAI's.

    A field of the body is known if chat requests or the other API define the field.

    Args:
        request: the request to the other API.
        model: class with all fields of the other API.
        unsupported: names that errors never suggest in place of a misspelt name.
        objects: kinds of objects, by the name of the field that has the objects. No pydantic class
            validates these objects.
    """
    known = {*field_names(model), *CHAT_FIELDS}
    suggested = tuple(sorted(known.difference(unsupported)))
    for field in unknown_fields(request):
        if field.prefix:
            yield field
        elif field.name not in known and field.name not in _OF_CHAT:
            yield field._replace(known=suggested)
    for name, kinds in objects.items():
        yield from unknown_in(getattr(request, name), name, kinds)


def unused_in_view(request: RequestModel, objects: Mapping[str, Kinds]) -> Iterator[str]:
    """Yield the paths of unused fields in objects that no pydantic class validates.

    `objects` has the kinds of the objects, by the name of the field that has the objects.
    """
    for name, kinds in objects.items():
        yield from unused_in(getattr(request, name), name, kinds)


def fields_of_answers(model: type[BaseModel], prompt_extras: Collection[str]) -> frozenset[str]:
    """Return the names of those fields of another API's requests that don't change the prompt.

    `model` is the class with all fields of the other API. `prompt_extras` are the fields of chat
    requests that change the prompt.
    """
    return frozenset({*CHAT_FIELDS, *field_names(model)}.difference(prompt_extras))
