"""Fields of OpenAI's API and related APIs that the server doesn't support. Pure.

Clients may send such a field with a neutral value, which has no effect. Any other value is refused
with an error that names the field, because an answer that silently ignores the value would be
wrong. The module `ignored_fields` lists the fields that are accepted with every value.
"""

import json
from collections.abc import Mapping
from typing import Any

from shared.errors import ErrorCode, JobError, JobFailed

NeutralValues = Mapping[str, tuple[Any, ...]]
"""For each unsupported field, its neutral values besides null, which is always neutral."""

COMMON: NeutralValues = {
    "moderation": (),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
}

CHAT: NeutralValues = {
    **COMMON,
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
}

COMPLETIONS: NeutralValues = {
    **COMMON,
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
}

MESSAGE: NeutralValues = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "reasoning_content": ("",),
    "refusal": (),
}
"""Unsupported fields of messages.

Clients may send these fields when they return a generated message to continue a conversation.
"""


def drop_unsupported(
    raw: Mapping[str, Any], unsupported: NeutralValues, *, path: str = ""
) -> dict[str, Any]:
    """Return `raw` without its unsupported fields.

    Raises:
        JobFailed: an unsupported field has a value that isn't neutral. The error names the field,
            preceded by `path`.
    """
    for name in unsupported.keys() & raw.keys():
        if not _is_neutral(raw[name], unsupported[name]):
            raise JobFailed(_unsupported_error(path + name, unsupported[name]))
    return {name: value for name, value in raw.items() if name not in unsupported}


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    # False == 0 in Python, but not in JSON.
    return value is None or any(
        value == other and isinstance(value, bool) == isinstance(other, bool) for other in neutral
    )


def _unsupported_error(param: str, neutral: tuple[Any, ...]) -> JobError:
    allowed = " or ".join(["null", *(json.dumps(value) for value in neutral)])
    return JobError(
        code=ErrorCode.UNSUPPORTED_PARAMETER,
        message=f"{param} isn't supported; leave it out, or send {allowed}",
        param=param,
    )
