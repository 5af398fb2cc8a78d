"""Checks the input file of a batch step by step, and lists its requests."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import orjson

from api.files.file_store import OpenObject
from shared.json_budget import JsonBudget, TooComplex
from shared.store.batches.records import LineError

MAX_LINES = 50_000
"""Maximum number of requests of a batch."""
MAX_ERRORS = 20
"""Maximum number of faults that are reported."""
MAX_ID_CHARS = 512
MAX_MODEL_CHARS = 256


@dataclass(frozen=True, slots=True)
class Line:
    """One request of an input file."""

    number: int
    """Number of the request, from 0."""
    offset: int
    """Position of the line in the file, in bytes."""
    num_bytes: int
    model: str


class _Fault(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class LineCheck:
    """Check of an input file with one JSON object per line. Empty lines are skipped."""

    def __init__(self, file: IO[bytes] | OpenObject, endpoint: str, *, max_bytes: int) -> None:
        """Begin a check of `file`. Nothing else may read from the file during the check.

        Lines longer than `max_bytes` are faults. All requests must have the path `endpoint` as
        their `url`.
        """
        self._file = file
        self._endpoint = endpoint
        self._max_bytes = max_bytes
        self._ids: set[bytes] = set()
        self._offset = 0
        self._number = 0
        self.lines: list[Line] = []
        """The requests found so far. Empty after the check if the file has faults."""
        self.errors: list[LineError] = []
        """The first faults. A file with faults is refused as a whole."""

    def step(self, num_bytes: int) -> bool:
        """Check about `num_bytes` of the file, and return whether the check is complete.

        Raises:
            JobFailed: the file can't be read.
        """
        end = self._offset + num_bytes
        while self._offset < end:
            start, raw = self._offset, self._read_line()
            if not raw:
                self._finish()
                return True
            self._number += 1
            if raw.strip():
                self._check(start, raw)
            if len(self.errors) == MAX_ERRORS or len(self.lines) > MAX_LINES:
                self._finish()
                return True
        return False

    def _read_line(self) -> bytes:
        """Read the next line and return it, or only its start if it is too long."""
        raw = self._file.readline(self._max_bytes + 2)
        self._offset += len(raw)
        last = raw
        while last and not last.endswith(b"\n"):
            last = self._file.readline(self._max_bytes + 2)
            self._offset += len(last)
        return raw

    def _check(self, offset: int, raw: bytes) -> None:
        try:
            model = self._model_of(raw)
        except _Fault as fault:
            self._add_error(fault.code, fault.message, fault.param, self._number)
        else:
            self.lines.append(Line(len(self.lines), offset, len(raw), model))

    def _finish(self) -> None:
        if len(self.lines) > MAX_LINES:
            message = f"the file has more than {MAX_LINES} requests; split it into several batches"
            self._add_error("too_many_requests", message)
        elif not self.lines and not self.errors:
            self._add_error("empty_file", "the file has no requests")
        if self.errors:
            self.lines = []

    def _add_error(
        self, code: str, message: str, param: str | None = None, line: int | None = None
    ) -> None:
        self.errors.append(LineError(code=code, message=message, param=param, line=line))

    def _model_of(self, raw: bytes) -> str:
        """Return the model of a line's request, after checking the line."""
        if len(raw) > self._max_bytes + 1:
            raise _Fault("line_too_large", f"the line has more than {self._max_bytes} bytes")
        line = _object(raw)
        self._check_id(line.get("custom_id"))
        if line.get("method") != "POST":
            raise _Fault("invalid_method", "method must be POST", "method")
        if line.get("url") != self._endpoint:
            message = f"url must be {self._endpoint}, the batch's endpoint"
            raise _Fault("mismatched_url", message, "url")
        return _model_of(line.get("body"))

    def _check_id(self, custom_id: Any) -> None:
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARS:
            message = f"custom_id must be a string of 1 to {MAX_ID_CHARS} characters"
            raise _Fault("invalid_custom_id", message, "custom_id")
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        if digest in self._ids:
            message = f"an earlier line has the custom_id {custom_id[:60]!r}"
            raise _Fault("duplicate_custom_id", message, "custom_id")
        self._ids.add(digest)


def encode_lines(lines: Sequence[Line]) -> bytes:
    """Return the lines as bytes. `decode_lines` restores them."""
    models = {line.model: 0 for line in lines}
    for number, model in enumerate(models):
        models[model] = number
    rows = [(line.offset, line.num_bytes, models[line.model]) for line in lines]
    return orjson.dumps({"models": list(models), "lines": rows})


def decode_lines(encoded: bytes) -> list[Line]:
    """Return the lines that were encoded with `encode_lines`."""
    read = orjson.loads(encoded)
    models = read["models"]
    return [
        Line(number, offset, num_bytes, models[model])
        for number, (offset, num_bytes, model) in enumerate(read["lines"])
    ]


def _model_of(body: Any) -> str:
    if not isinstance(body, dict):
        raise _Fault("invalid_body", "body must be a JSON object", "body")
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_CHARS:
        message = f"body.model must name a model with at most {MAX_MODEL_CHARS} characters"
        raise _Fault("missing_model", message, "body.model")
    for field in ("stream", "background"):
        if body.get(field):
            raise _Fault("unsupported_field", f"{field} isn't allowed in a batch", f"body.{field}")
    return model


def _object(raw: bytes) -> dict[str, Any]:
    """Parse a line as JSON. The limits for a request's body apply."""
    try:
        JsonBudget().spend(raw)
        line = orjson.loads(raw)
    except TooComplex as error:
        raise _Fault("invalid_json_line", f"the line's JSON {error}") from None
    except ValueError as error:
        raise _Fault("invalid_json_line", f"the line isn't valid JSON: {error}") from None
    if not isinstance(line, dict):
        raise _Fault("invalid_json_line", "the line must be a JSON object")
    return line
