"""Reads a multipart form with one file. The file is never in memory as a whole."""

from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.files.file_store import PIECE_BYTES
from shared.errors import JobFailed, invalid_value

MAX_FIELDS = 16
"""Maximum number of parts of a form."""
MAX_FIELDS_BYTES = 64 << 10
"""Maximum number of bytes of a form without its file."""


class FileForm:
    """Parser of a form that arrives in chunks.

    `fields` and `file_name` are complete after `content` has ended.
    """

    def __init__(self, content_type: str) -> None:
        """Create a parser. `content_type` is the form's header Content-Type.

        Raises:
            JobFailed: the content type isn't that of a form.
        """
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            raise invalid_value(
                f"the content type must be multipart/form-data, not {kind.decode()[:60]!r}; send "
                "the form fields file and purpose"
            )
        if not options.get(b"boundary"):
            raise _unreadable("the content type names no boundary")
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None
        self._num_parts = self._num_field_bytes = 0
        self._header = self._value = self._disposition = b""
        self._field = bytearray()
        self._name = ""
        self._is_file = False
        self._taken = bytearray()
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
            },
        )

    async def content(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the content of the field `file` in pieces of about `PIECE_BYTES`.

        Raises:
            JobFailed: the form can't be read, or has several files or large fields.
        """
        try:
            async for chunk in body:
                self._parser.write(chunk)
                if len(self._taken) >= PIECE_BYTES:
                    yield self._take()
            self._parser.finalize()
        except FormParserError:
            raise _unreadable("it isn't valid multipart data") from None
        if self._taken:
            yield self._take()

    def _take(self) -> bytes:
        piece = bytes(self._taken)
        self._taken.clear()
        return piece

    def _on_part_begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_FIELDS:
            raise _unreadable(f"it has more than {MAX_FIELDS} fields")
        self._disposition, self._field = b"", bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._is_file = self._name == "file" and b"filename" in options
        if not self._is_file:
            return
        if self.file_name is not None:
            raise _unreadable("it has more than one file")
        self.file_name = options[b"filename"].decode(errors="replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._taken += data[start:end]
            return
        self._num_field_bytes += end - start
        if self._num_field_bytes > MAX_FIELDS_BYTES:
            raise _unreadable(f"its fields have more than {MAX_FIELDS_BYTES >> 10} KiB")
        self._field += data[start:end]

    def _on_part_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._field.decode(errors="replace")


def _unreadable(reason: str) -> JobFailed:
    return invalid_value(f"the form can't be read: {reason}")
