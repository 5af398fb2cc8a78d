"""Decodes compressed request bodies, within a limit on the decoded size. Pure."""

import zlib

from shared.errors import ErrorCode, JobError, JobFailed

_GZIP = {"gzip", "x-gzip"}
_PLAIN = {"", "identity"}
_GZIP_WBITS = 16 + zlib.MAX_WBITS
"""Selects gzip's format, with a header and a checksum."""


class Decoder:
    """Decodes one body, chunk by chunk. It never produces more bytes than the limit plus one.

    Args:
        encoding: value of the header Content-Encoding.
        max_bytes: limit on the size of the decoded body.

    Raises:
        JobFailed: the encoding isn't supported (415).
    """

    def __init__(self, encoding: str, max_bytes: int) -> None:
        encoding = encoding.strip().lower()
        if encoding not in _GZIP | _PLAIN:
            raise JobFailed(_unsupported(encoding))
        self._is_gzip = encoding in _GZIP
        self._stream = zlib.decompressobj(_GZIP_WBITS)
        self._left = max_bytes + 1

    def decode(self, chunk: bytes) -> bytes:
        """Return the bytes that `chunk` adds to the body, or its first bytes if it is too large.

        Raises:
            JobFailed: the data isn't valid gzip data (400).
        """
        if not self._is_gzip:
            return chunk
        try:
            # A limit of 0 would mean no limit. `_left` is 0 only after the body was refused.
            decoded = self._stream.decompress(chunk, max(1, self._left))
        except zlib.error:
            raise JobFailed(_invalid("it isn't valid gzip data")) from None
        if self._stream.unused_data:
            raise JobFailed(_invalid("more data follows the gzip data"))
        self._left -= len(decoded)
        return decoded

    def finish(self) -> None:
        """Check that the body is complete.

        Raises:
            JobFailed: the gzip data ends too early (400).
        """
        if self._is_gzip and not self._stream.eof:
            raise JobFailed(_invalid("its gzip data is incomplete"))


def _invalid(reason: str) -> JobError:
    message = f"the body has the header `Content-Encoding: gzip`, but {reason}"
    return JobError(code=ErrorCode.INVALID_VALUE, message=message)


def _unsupported(encoding: str) -> JobError:
    message = f"the body's Content-Encoding {encoding[:40]!r} isn't supported; send gzip or none"
    return JobError(code=ErrorCode.UNSUPPORTED_ENCODING, message=message)
