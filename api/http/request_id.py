"""Ids of HTTP requests, sent by clients or generated."""

import re
import secrets

from starlette.datastructures import Headers
from starlette.types import Scope

from api.http.headers import REQUEST_ID_HEADER

_VALID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)


def request_id_of(scope: Scope) -> str:
    """Return the client's request id if it is valid, or a new id otherwise.

    The id appears in logs and headers, so a valid id is short and has no unusual characters.
    """
    sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return sent if _VALID.fullmatch(sent) else new_request_id()


def new_request_id() -> str:
    """Return a random request id."""
    return f"req_{secrets.token_hex(16)}"
