"""Fields of a request to /v1/responses that response objects repeat. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.schema.responses import ResponseRequest, TextFormat


def echoed_fields(request: ResponseRequest, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of the request that the response object repeats.

    Fields that the request lacks have default values.

    `tools` must contain only known fields.
    """
    reasoning = request.reasoning
    return {
        "background": bool(request.background),
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "store": request.store is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": _echoed_format(request.text_format), "verbosity": "medium"},
        "tool_choice": "auto" if request.tool_choice is None else request.tool_choice,
        "tools": [_echoed_tool(tool) for tool in tools],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": "disabled",
        "user": request.user,
    }


def _echoed_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool["type"] == "namespace":
        return {**tool, "tools": [_echoed_tool(each) for each in tool["tools"]]}
    return {"description": None, "parameters": None, "strict": None, **tool}


def _echoed_format(given: TextFormat) -> dict[str, Any]:
    if given.type != "json_schema":
        return {"type": given.type}
    return {
        "type": given.type,
        "name": given.name or "output",
        "description": given.description,
        "schema": given.schema_,
        "strict": True,
    }
