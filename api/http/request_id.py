"""The id of an HTTP request: the client's, or one of ours."""

import re
import secrets

from starlette.datastructures import Headers
from starlette.types import Message, Scope

REQUEST_ID_HEADER = "X-Request-Id"
_SANE = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)


def request_id_of(scope: Scope) -> str:
    """The client's id, if it is short and plain, as it goes into logs and headers; or a new one."""
    sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return sent if _SANE.fullmatch(sent) else new_request_id()


def new_request_id() -> str:
    """An id for a request that brought none."""
    return f"req_{secrets.token_hex(16)}"


def with_request_id(message: Message, request_id: str) -> Message:
    """The start of a response, with the id in a header; any other message as it is."""
    if message["type"] != "http.response.start":
        return message
    header = (REQUEST_ID_HEADER.lower().encode(), request_id.encode())
    return {**message, "headers": [*message.get("headers", ()), header]}
