"""Checks the input file of a batch, and finds its requests. Pure but for reading the file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from api.http.bounded_json import JsonBudget
from shared.store.batches.records import LineError

MAX_LINES = 50_000
"""Maximum number of requests of a batch."""
MAX_ERRORS = 20
"""Maximum number of faults that are reported."""
MAX_ID_CHARS = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One request of an input file."""

    number: int
    """Number of the request, from 0."""
    offset: int
    """Position of the line in the file, in bytes."""
    num_bytes: int
    model: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Result of the check of an input file."""

    lines: list[Line]
    errors: list[LineError]
    """The first faults. A file with faults is refused as a whole."""


class _Fault(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def check_lines(path: Path, endpoint: str, *, max_bytes: int) -> Checked:
    """Check an input file.

    Args:
        path: the file, with one JSON object per line. Empty lines are skipped.
        endpoint: path that all requests must have as their `url`.
        max_bytes: maximum size of a line.
    """
    lines: list[Line] = []
    errors: list[LineError] = []
    custom_ids: set[str] = set()
    for number, offset, raw in _raw_lines(path, max_bytes):
        if len(lines) == MAX_LINES:
            message = f"the file has more than {MAX_LINES} requests; split it into several batches"
            return Checked([], [*errors, LineError(code="too_many_requests", message=message)])
        try:
            model = _model_of(raw, endpoint, custom_ids, max_bytes)
        except _Fault as fault:
            errors.append(
                LineError(code=fault.code, message=fault.message, param=fault.param, line=number)
            )
            if len(errors) == MAX_ERRORS:
                break
            continue
        lines.append(Line(len(lines), offset, len(raw), model))
    if not lines and not errors:
        errors.append(LineError(code="empty_file", message="the file has no requests"))
    return Checked([] if errors else lines, errors)


def in_order(lines: list[Line]) -> list[Line]:
    """Return the lines grouped by model. Models and their lines keep the order of the file."""
    rank: dict[str, int] = {}
    for line in lines:
        rank.setdefault(line.model, len(rank))
    return sorted(lines, key=lambda line: rank[line.model])


def _raw_lines(path: Path, max_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the number from 1, the offset and the start of each line that isn't empty."""
    offset = 0
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(max_bytes + 2):
            number, start, offset = number + 1, offset, offset + len(raw)
            while not raw.endswith(b"\n") and (rest := file.readline(max_bytes + 2)):
                offset += len(rest)
                if rest.endswith(b"\n"):
                    break
            if raw.strip():
                yield number, start, raw


def _model_of(raw: bytes, endpoint: str, custom_ids: set[str], max_bytes: int) -> str:
    """Return the model of a line's request, after checking the line."""
    if len(raw) > max_bytes + 1:
        raise _Fault("line_too_large", f"the line has more than {max_bytes} bytes")
    line = _object(raw)
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARS:
        message = f"custom_id must be a string of 1 to {MAX_ID_CHARS} characters"
        raise _Fault("invalid_custom_id", message, "custom_id")
    if custom_id in custom_ids:
        message = f"an earlier line has the custom_id {custom_id[:60]!r}"
        raise _Fault("duplicate_custom_id", message, "custom_id")
    custom_ids.add(custom_id)
    if line.get("method") != "POST":
        raise _Fault("invalid_method", "method must be POST", "method")
    if line.get("url") != endpoint:
        raise _Fault("mismatched_url", f"url must be {endpoint}, the batch's endpoint", "url")
    body = line.get("body")
    if not isinstance(body, dict):
        raise _Fault("invalid_body", "body must be a JSON object", "body")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _Fault("missing_model", "body.model must name a model", "body.model")
    for field in ("stream", "background"):
        if body.get(field):
            raise _Fault("unsupported_field", f"{field} isn't allowed in a batch", f"body.{field}")
    return model


def _object(raw: bytes) -> dict[str, Any]:
    try:
        line = JsonBudget().loads(raw)
    except orjson.JSONDecodeError as error:
        raise _Fault("invalid_json_line", f"the line isn't valid JSON: {error}") from None
    except ValueError as error:
        raise _Fault("invalid_json_line", f"the line's JSON {error}") from None
    if not isinstance(line, dict):
        raise _Fault("invalid_json_line", "the line must be a JSON object")
    return line
