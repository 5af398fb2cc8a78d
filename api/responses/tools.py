"""Tools of /v1/responses: their checks, and namespaces, which chat requests don't have. Pure.

A function of a namespace is offered to the model under one name: the names of the namespace and the
function, joined. In a call of the function, the two names are separate again, as in OpenAI's API.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from api.requests.object_kinds import refuse, string_of
from api.schema.tools import MAX_NAME_CHARS
from shared.errors import ErrorCode
from shared.protocol.answers import AnswerSpec

Tool = dict[str, Any]
_FIELDS = ("name", "description", "parameters", "strict")
_HASH_CHARS = 8


def checked_tools(tools: Sequence[Mapping[str, Any]]) -> list[Tool]:
    """Return functions and namespaces without unknown fields.

    Raises:
        JobFailed: a tool has a type that isn't supported, or a namespace is invalid. The error
            names it.
    """
    return [_checked(tool, f"tools[{i}]") for i, tool in enumerate(tools)]


def functions_of(tools: Sequence[Tool]) -> Iterator[Tool]:
    """Yield all functions of checked tools. Functions of namespaces have their joined names."""
    for tool in tools:
        if tool["type"] == "function":
            yield tool
        else:
            for function in tool["tools"]:
                name = function.get("name")
                # Other types are refused later, with the path of the chat request's field.
                joined = joined_name(tool["name"], name) if isinstance(name, str) else name
                yield {**function, "name": joined}


def namespaces_of(tools: Sequence[Tool]) -> dict[str, list[str]]:
    """Return the namespace and the name of each namespace's functions, by their joined names."""
    return {
        joined_name(tool["name"], function["name"]): [tool["name"], function["name"]]
        for tool in tools
        if tool["type"] == "namespace"
        for function in tool["tools"]
        if isinstance(function.get("name"), str)
    }


def joined_name(namespace: str, name: str) -> str:
    """Return the name under which the model sees a function of a namespace.

    Names that are too long for a function end with a hash.
    """
    joined = f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"
    if len(joined) <= MAX_NAME_CHARS:
        return joined
    digest = hashlib.sha256(joined.encode()).hexdigest()[:_HASH_CHARS]
    return f"{joined[: MAX_NAME_CHARS - _HASH_CHARS - 1]}_{digest}"


def called_name(spec: AnswerSpec, name: str) -> dict[str, str]:
    """Return the name, and the namespace if there is one, of the function that a call names.

    `name` is the name that the model wrote, which may be a joined name.
    """
    namespaces = (spec.request or {}).get("namespaces", {})
    if name not in namespaces:
        return {"name": name}
    namespace, inner = namespaces[name]
    return {"name": inner, "namespace": namespace}


def _checked(tool: Mapping[str, Any], path: str) -> Tool:
    kind = tool.get("type")
    if kind == "function":
        return _function(tool)
    if kind != "namespace":
        message = f"tools of type {kind!r:.60} aren't supported; send functions"
        refuse(f"{path}.type", message, ErrorCode.UNSUPPORTED_PARAMETER)
    inner = tool.get("tools")
    if not isinstance(inner, list):
        refuse(f"{path}.tools", "must be a list of functions")
    for i, each in enumerate(inner):
        kind = each.get("type") if isinstance(each, dict) else None
        if kind != "function":
            message = f"tools of type {kind!r:.60} aren't supported; send functions"
            refuse(f"{path}.tools[{i}].type", message, ErrorCode.UNSUPPORTED_PARAMETER)
    return {
        "type": "namespace",
        "name": string_of(tool, "name", path),
        "description": tool.get("description"),
        "tools": [_function(each) for each in inner],
    }


def _function(tool: Mapping[str, Any]) -> Tool:
    return {"type": "function", **{name: tool[name] for name in _FIELDS if name in tool}}
