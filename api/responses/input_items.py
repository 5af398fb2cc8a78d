"""Pages of the input items of a response. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.http.lists import DEFAULT_LIMIT, MAX_LIMIT, limit, page_body
from api.http.parameters import query
from api.responses.items import stored_input
from shared.errors import invalid_value
from shared.protocol.answers import AnswerSpec

ORDERS = ("desc", "asc")
ITEMS_PARAMETERS = [
    limit("items", default=DEFAULT_LIMIT, most=MAX_LIMIT),
    query("order", "desc, the default, begins with the newest.", {"enum": list(ORDERS)}),
    query("after", "Id of the item before the page.", {"type": "string"}),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPage:
    """The page of input items that a request asks for."""

    limit: int
    is_oldest_first: bool
    after: str | None
    """Id of the item before the page; None to begin with the first item."""


def read_page(params: Mapping[str, str]) -> ItemPage:
    """Return the page that the query parameters ask for.

    Raises:
        JobFailed: a parameter is invalid. The error names it.
    """
    text, order = params.get("limit", str(DEFAULT_LIMIT)), params.get("order", ORDERS[0])
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and 0 < int(text) <= MAX_LIMIT):
        raise invalid_value(f"limit: must be a number from 1 to {MAX_LIMIT}", "limit")
    if order not in ORDERS:
        raise invalid_value(f"order: must be {' or '.join(ORDERS)}", "order")
    return ItemPage(limit=int(text), is_oldest_first=order == "asc", after=params.get("after"))


def input_items_body(spec: AnswerSpec, page: ItemPage) -> dict[str, Any]:
    """Return a page of the response's input items.

    Raises:
        JobFailed: no item has the id `page.after`.
    """
    items = [
        {"id": f"item_{spec.id}_{index}", **item, "status": "completed"}
        for index, item in enumerate(stored_input(spec) or ())
    ]
    if not page.is_oldest_first:
        items.reverse()
    if page.after is not None:
        ids = [item["id"] for item in items]
        if page.after not in ids:
            message = "after: isn't the id of an input item of this response"
            raise invalid_value(message, "after")
        items = items[ids.index(page.after) + 1 :]
    shown = items[: page.limit]
    return page_body(shown, has_more=len(items) > len(shown))
