"""Reads the query of GET /v1/usage."""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from starlette.datastructures import QueryParams

from api.http.lists import check_known, read_limit
from api.http.parameters import Parameters, query
from shared.errors import invalid_value

DEFAULT_DAYS, MAX_DAYS = 30, 400
DEFAULT_LIMIT, MAX_LIMIT = 1000, 10_000


class Group(StrEnum):
    """Column by which usage is grouped.

    The columns of a row have the order of these members, and rows are sorted by the columns.
    """

    DAY = "day"
    TENANT = "tenant"
    MODEL = "model"


class Format(StrEnum):
    """Format of the response to GET /v1/usage."""

    JSON = "json"
    CSV = "csv"


PARAMETERS: Parameters = [
    query(
        "start",
        f"First UTC day, as YYYY-MM-DD. Defaults to {DEFAULT_DAYS} days before the end.",
        {"type": "string", "format": "date"},
    ),
    query(
        "end",
        "Last UTC day, as YYYY-MM-DD. Defaults to today.",
        {"type": "string", "format": "date"},
    ),
    query(
        "group_by",
        "Columns of the rows, separated by commas or in repeated parameters. Defaults to all. "
        "Usage is summed over the others.",
        {"type": "array", "items": {"type": "string", "enum": [each.value for each in Group]}},
    ),
    query(
        "tenant",
        "Tenant of the usage. Other tenants than the key's need the scope admin.",
        {"type": "string"},
    ),
    query(
        "limit",
        f"Maximum number of rows. Defaults to {DEFAULT_LIMIT}. CSV has all rows.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
    ),
    query("after", "last_id of the previous page.", {"type": "string"}),
    query(
        "format",
        "Format of the answer. Defaults to json, or to csv with `Accept: text/csv`.",
        {"type": "string", "enum": [each.value for each in Format]},
    ),
]
"""Parameters of the query in the OpenAPI document."""
_NAMES = [parameter["name"] for parameter in PARAMETERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Describes the usage that one request asks for."""

    start: date
    end: date
    groups: tuple[Group, ...]
    """Columns of the rows, in the order of `Group`."""
    tenant: str | None
    """Tenant of the rows; None for all tenants that the client may see."""
    limit: int
    after: tuple[str, ...] | None
    """Values that the last row of the previous page has in its columns; None for the first page."""
    format: Format

    @property
    def days(self) -> list[date]:
        """All days from `start` to `end`, oldest first."""
        return [
            self.start + timedelta(days=number)
            for number in range((self.end - self.start).days + 1)
        ]


def read_usage_query(params: QueryParams, *, accept: str, today: date) -> UsageQuery:
    """Return which usage a client asks for. `accept` is the value of its header Accept.

    Raises:
        JobFailed: a parameter is unknown or has an invalid value. The error names the parameter.
    """
    check_known(params, _NAMES)
    end = _day(params.get("end"), "end") or today
    first_day = date.fromordinal(max(1, end.toordinal() - DEFAULT_DAYS))
    start = _day(params.get("start"), "start") or first_day
    if not 0 <= (end - start).days < MAX_DAYS:
        raise invalid_value(
            f"start: must be at most {MAX_DAYS} days before end, and not after it", "start"
        )
    groups = _groups(params.getlist("group_by"))
    return UsageQuery(
        start=start,
        end=end,
        groups=groups,
        tenant=params.get("tenant"),
        limit=read_limit(params.get("limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT),
        after=_after(params.get("after"), groups),
        format=_format(params.get("format"), accept),
    )


def _day(text: str | None, name: str) -> date | None:
    if text is None:
        return None
    try:
        if len(text) == len("YYYY-MM-DD"):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise invalid_value(f"{name}: must be a day as YYYY-MM-DD, not {text[:60]!r}", name)


def _groups(texts: list[str]) -> tuple[Group, ...]:
    words = {word for text in texts for word in text.split(",")}
    for word in words:
        if word not in set(Group):
            names = ", ".join(Group)
            raise invalid_value(f"group_by: must be some of {names}, not {word[:60]!r}", "group_by")
    return tuple(group for group in Group if group in words or not words)


def _after(text: str | None, groups: tuple[Group, ...]) -> tuple[str, ...] | None:
    """Split the id of a row at spaces into the values of the row's columns.

    Only the value of the last column may contain spaces, because it can be a model's name.
    """
    if text is None:
        return None
    names = tuple(text.split(" ", len(groups) - 1))
    if len(names) != len(groups):
        raise invalid_value("after: must be the last_id of a page of the same query", "after")
    return names


def _format(text: str | None, accept: str) -> Format:
    if text is None:
        return Format.CSV if "text/csv" in accept else Format.JSON
    if text not in set(Format):
        raise invalid_value(f"format: must be json or csv, not {text[:60]!r}", "format")
    return Format(text)
