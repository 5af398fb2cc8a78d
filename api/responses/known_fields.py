"""Known fields of those objects in /v1/responses requests that no pydantic class validates. Pure.

Clients send items of earlier responses back as they are. Fields such as `id` and `annotations` are
therefore known, although the conversation doesn't need them.
"""

from api.requests.object_kinds import Kinds, ObjectKind

_ANSWER = ObjectKind(fields=("type", "text", "annotations", "logprobs", "parsed"))
_CONTENT: Kinds = {
    "input_text": ObjectKind(fields=("type", "text"), unused=("prompt_cache_breakpoint",)),
    "output_text": _ANSWER,
    "text": _ANSWER,
    "refusal": ObjectKind(fields=("type", "refusal")),
    "input_image": ObjectKind(fields=("type", "image_url", "detail")),
}
_MESSAGE = ObjectKind(
    fields=("type", "role", "content", "id", "status", "phase"), parts={"content": _CONTENT}
)
_THOUGHTS: Kinds = {None: ObjectKind(fields=("type", "text"))}
_CALL = ("type", "call_id", "name", "namespace", "caller", "id", "status")

ITEMS: Kinds = {
    None: _MESSAGE,
    "function_call": ObjectKind(fields=(*_CALL, "arguments", "async")),
    "function_call_output": ObjectKind(fields=(*_CALL, "output"), parts={"output": _CONTENT}),
    "reasoning": ObjectKind(
        fields=("type", "summary", "content", "encrypted_content", "id", "status"),
        parts={"summary": _THOUGHTS, "content": _THOUGHTS},
    ),
}
"""Kinds of input items. Items of other types are messages, or are refused."""
_FUNCTIONS: Kinds = {
    None: ObjectKind(
        fields=("type", "name", "description", "parameters", "strict"),
        unused=("defer_loading", "allowed_callers", "output_schema", "async"),
    )
}
TOOLS: Kinds = {
    **_FUNCTIONS,
    "namespace": ObjectKind(
        fields=("type", "name", "description", "tools"), parts={"tools": _FUNCTIONS}
    ),
}
_NAMED: Kinds = {None: ObjectKind(fields=("type", "name"))}
TOOL_CHOICE: Kinds = {
    **_NAMED,
    "allowed_tools": ObjectKind(fields=("type", "mode", "tools"), parts={"tools": _NAMED}),
}
