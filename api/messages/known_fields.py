"""Known fields of the objects in /v1/messages requests that no pydantic class validates. Pure.

Clients send blocks of earlier messages back as they are, and mark blocks to be cached. Fields such
as `signature` and `cache_control` are therefore known, although the conversation doesn't need them.
"""

from api.requests.object_kinds import Kinds, ObjectKind

_ANY = ("type", "cache_control")

TEXTS: Kinds = {None: ObjectKind(fields=(*_ANY, "text", "citations"))}
_SOURCE = ObjectKind(fields=("type", "media_type", "data", "url"))
_PARTS: Kinds = {
    **TEXTS,
    "image": ObjectKind(fields=(*_ANY, "source"), parts={"source": {None: _SOURCE}}),
}
_BLOCKS: Kinds = {
    **_PARTS,
    "thinking": ObjectKind(fields=(*_ANY, "thinking", "signature")),
    "redacted_thinking": ObjectKind(fields=(*_ANY, "data")),
    "tool_use": ObjectKind(fields=(*_ANY, "id", "name", "input", "caller", "toolset_name")),
    "tool_result": ObjectKind(
        fields=(*_ANY, "tool_use_id", "content", "toolset_name"),
        unused=("is_error",),
        parts={"content": _PARTS},
    ),
}
"""Kinds of content blocks. Blocks of other types are text blocks, or are refused."""
MESSAGES: Kinds = {None: ObjectKind(fields=("role", "content"), parts={"content": _BLOCKS})}
TOOLS: Kinds = {
    None: ObjectKind(
        fields=(*_ANY, "name", "description", "input_schema", "strict"),
        unused=("allowed_callers", "defer_loading", "eager_input_streaming", "input_examples"),
    )
}
