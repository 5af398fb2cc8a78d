"""Fields of OpenAI's API (and of its relatives') that aren't served yet.

A client may send each of them with the value that asks for nothing; any other value is refused by
name, because an answer that ignores what was asked for is worse than none.
"""

import json
from collections.abc import Mapping
from typing import Any

from shared.errors import ErrorCode, JobError, JobFailed

Neutral = Mapping[str, tuple[Any, ...]]
"""Field name -> values that ask for nothing. None is always one of them."""

COMMON: Neutral = {
    "moderation": (),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
}

CHAT: Neutral = {
    **COMMON,
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
}

COMPLETIONS: Neutral = {
    **COMMON,
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
}

MESSAGE: Neutral = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "reasoning_content": ("",),
    "refusal": (),
}
"""What a client sends back when it repeats an answer of ours as a message."""


def without_neutral(raw: Mapping[str, Any], neutral: Neutral, *, path: str = "") -> dict[str, Any]:
    """`raw` without the fields of `neutral`.

    Raises:
        JobFailed: one of them asks for something; the error names it, with `path` before it.
    """
    for name in neutral.keys() & raw.keys():
        if not _asks_for_nothing(raw[name], neutral[name]):
            raise JobFailed(_unsupported(path + name, neutral[name]))
    return {name: value for name, value in raw.items() if name not in neutral}


def _asks_for_nothing(value: Any, neutral: tuple[Any, ...]) -> bool:
    # False == 0 in Python, but not in JSON.
    return value is None or any(
        value == other and isinstance(value, bool) == isinstance(other, bool) for other in neutral
    )


def _unsupported(param: str, neutral: tuple[Any, ...]) -> JobError:
    allowed = " or ".join(["null", *(json.dumps(value) for value in neutral)])
    return JobError(
        code=ErrorCode.UNSUPPORTED_PARAMETER,
        message=f"{param} isn't supported; leave it out, or send {allowed}",
        param=param,
    )
