"""What an adapter's files say in JSON."""

import json
from typing import Any

from shared.errors import AdapterRejected


def json_object(text: bytes, what: str) -> dict[str, Any]:
    """The fields of a JSON object; `what` is it, for the error.

    Raises:
        AdapterRejected: it is something else.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterRejected(f"{what} isn't JSON: {error}") from None
    if not isinstance(fields, dict):
        raise AdapterRejected(f"{what} isn't a JSON object")
    return fields
