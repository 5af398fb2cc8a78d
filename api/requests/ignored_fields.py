"""Lists request fields that are accepted but ignored, and builds the warning header. Pure.

The module `unsupported_fields` lists the fields that are refused unless their value is neutral.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from api.requests.unknown_fields import unknown_fields
from api.schema.base import RequestModel
from api.schema.chat import ChatCompletionRequest
from api.schema.messages import AssistantMessage
from api.schema.tools import mode_of

MAX_LISTED = 10
"""Maximum number of fields that the header names. It counts the other ones."""
MAX_LISTED_CHARS = 80
"""Maximum length of a field's path in the header."""
_UNSAFE = re.compile(r"[^!#-+\--~]")
"""Characters of paths that the header replaces: all but visible ASCII, and commas and quotes.

Clients choose the names of unknown fields, so a name may contain line breaks, for example.
"""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "metadata": ({},),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "safety_identifier": (),
    "store": (False,),
    "user": (),
}
"""For each ignored field, the values that don't cause a warning, in addition to null.

These fields are ignored rather than refused, because some clients send them to every server.
"""


def warning(request: RequestModel, others: Sequence[str] = ()) -> str | None:
    """Return the value of the warning header, or None if no field is ignored.

    `others` are the paths of ignored fields that `request` doesn't have. The value is visible ASCII
    with single spaces, and has at most 1,000 characters.
    """
    unknown = (field.path for field in unknown_fields(request))
    paths = [*_ignored(request), *others, *unknown]
    return f"not used: {_listed(paths)}" if paths else None


def _listed(paths: Sequence[str]) -> str:
    shown = [_shown(path) for path in paths[:MAX_LISTED]]
    num_more = len(paths) - len(shown)
    return ", ".join(shown) + (f" and {num_more} more" if num_more else "")


def _shown(path: str) -> str:
    safe = _UNSAFE.sub("?", path[: MAX_LISTED_CHARS + 1]) or "?"
    return safe if len(safe) <= MAX_LISTED_CHARS else safe[: MAX_LISTED_CHARS - 3] + "..."


def _ignored(request: RequestModel) -> Iterator[str]:
    """Yield the paths of known fields that are ignored."""
    known = type(request).model_fields
    for name, neutral in _NEUTRAL.items():
        if name in known and getattr(request, name) not in (None, *neutral):
            yield name
    if isinstance(request, ChatCompletionRequest):
        yield from _ignored_strict(request)
        yield from _ignored_annotations(request)


def _ignored_strict(request: ChatCompletionRequest) -> Iterator[str]:
    """Yield the paths of the `strict` fields that are ignored.

    The server enforces the schema of a tool's arguments only if `tool_choice` requires a call.
    """
    if mode_of(request.tool_choice) == "auto":
        for index, tool in enumerate(request.tools or ()):
            if tool.function.strict:
                yield f"tools[{index}].function.strict"


def _ignored_annotations(request: ChatCompletionRequest) -> Iterator[str]:
    for index, message in enumerate(request.messages):
        if isinstance(message, AssistantMessage) and message.annotations:
            yield f"messages[{index}].annotations"
