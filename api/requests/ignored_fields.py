"""Lists the fields of a request that are ignored, and builds the warning header. Pure.

Fields that no endpoint knows are ignored as well, unless clients prefer strict handling. The module
`unsupported_fields` lists the fields that are refused unless their value is neutral, and
`chat_messages` removes `strict` from tools.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from api.requests.constraints import constraint_of
from api.requests.unknown_fields import UnknownField, unknown_fields
from api.schema.base import RequestModel
from api.schema.chat import ChatCompletionRequest
from api.schema.chat_messages import AssistantMessage
from api.schema.tools import mode_of

MAX_LISTED = 10
"""Maximum number of fields that the header names. If there are more, it states how many more."""
MAX_LISTED_CHARS = 80
"""Maximum length of a field's path in the header."""
_UNSAFE = re.compile(r"[^!#-+\--~]")
"""Characters of paths that the header replaces: commas, double quotes, and all but visible ASCII.

Clients choose the names of unknown fields, so a name may contain line breaks, for example.
"""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "metadata": ({},),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "store": (False,),
}
"""For each ignored field, the values that don't cause a warning, in addition to null.

These fields are ignored rather than refused, because some clients send them to every server.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherFields:
    """Fields of another API's request that are missing in the chat request made from it."""

    ignored: Sequence[str] = ()
    """Paths of the known fields that are ignored."""
    unknown: Sequence[UnknownField] = ()
    renamed: Callable[[str], str] = str
    """Converts the path of a field in the chat request to its path in the original request."""


NO_OTHERS = OtherFields()


def all_unknown(request: RequestModel, others: OtherFields = NO_OTHERS) -> Iterator[UnknownField]:
    """Yield the unknown fields of a request. `others` are fields that `request` lacks."""
    yield from others.unknown
    yield from unknown_fields(request)


def warning(request: RequestModel, others: OtherFields = NO_OTHERS) -> str | None:
    """Return the value of the warning header, or None if no field is ignored.

    `others` are fields that `request` lacks. The value is visible ASCII with single spaces, and has
    at most 1,000 characters.
    """
    ignored = chain(map(others.renamed, _ignored(request)), others.ignored)
    listed = _listed(ignored, all_unknown(request, others))
    return f"not used: {listed}" if listed else None


def _listed(ignored: Iterator[str], unknown: Iterator[UnknownField]) -> str:
    """Return the paths of the first `MAX_LISTED` fields, and the number of further fields."""
    paths = chain(ignored, (field.path for field in unknown))
    shown = ", ".join(_shown(path) for path in islice(paths, MAX_LISTED))
    # `islice` leaves the further fields in the iterators.
    num_more = sum(1 for _ in ignored) + sum(1 for _ in unknown)
    return shown + (f" and {num_more} more" if num_more else "")


def _shown(path: str) -> str:
    safe = _UNSAFE.sub("?", path[: MAX_LISTED_CHARS + 1]) or "?"
    return safe if len(safe) <= MAX_LISTED_CHARS else safe[: MAX_LISTED_CHARS - 3] + "..."


def _ignored(request: RequestModel) -> Iterator[str]:
    """Yield the paths of known fields that are ignored."""
    fields = type(request).model_fields
    for name, neutral in _NEUTRAL.items():
        if name in fields and getattr(request, name) not in (None, *neutral):
            yield name
    if isinstance(request, ChatCompletionRequest):
        yield from _ignored_strict(request)
        yield from _ignored_annotations(request)


def _ignored_strict(request: ChatCompletionRequest) -> Iterator[str]:
    """Yield the paths of the `strict` fields that are ignored.

    A grammar enforces the schemas of all tools, strict or not, if `tool_choice` requires a call or
    the request constrains its answers, for example with `response_format`. Other calls aren't
    constrained.
    """
    if mode_of(request.tool_choice) == "auto" and constraint_of(request) is None:
        for index, tool in enumerate(request.tools or ()):
            if tool.function.strict:
                yield f"tools[{index}].function.strict"


def _ignored_annotations(request: ChatCompletionRequest) -> Iterator[str]:
    for index, message in enumerate(request.messages):
        if isinstance(message, AssistantMessage) and message.annotations:
            yield f"messages[{index}].annotations"
