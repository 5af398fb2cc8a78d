"""Known fields of the messages in requests to /api/chat, which no pydantic class validates. Pure.

Clients send answers back as they are, so fields such as `index` are known, although the
conversation doesn't need them.
"""

from api.requests.object_kinds import Kinds, ObjectKind

_FUNCTION = ObjectKind(fields=("index", "name", "arguments"))
_CALL = ObjectKind(
    fields=("id", "type", "index", "function"), parts={"function": {None: _FUNCTION}}
)
MESSAGES: Kinds = {
    None: ObjectKind(
        fields=(
            *("role", "content", "thinking", "images"),
            *("tool_calls", "tool_name", "tool_call_id"),
        ),
        parts={"tool_calls": {None: _CALL}},
    )
}
