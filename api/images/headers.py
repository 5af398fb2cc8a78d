"""Reads the size of an image from its file's header. Pure.

Pillow also reads the metadata in front of the pixels. For some files that takes seconds, with the
interpreter's lock held. This module reads a bounded number of fields, and refuses such files.
"""

import struct
from struct import unpack_from

MAX_BLOCKS = 256
"""Maximum number of blocks of metadata in front of the pixels. Cameras write a few dozen."""
MAX_GIF_BLOCKS = 2048
"""Maximum number of metadata blocks in front of the pixels of a GIF file. It is larger than
`MAX_BLOCKS`, because a block of a GIF file has at most 255 bytes."""
_PNG, _JPEG, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", (b"GIF87a", b"GIF89a")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that start a frame header in a JPEG file. The frame header has the image's size."""
_PIXELS = (0xD9, 0xDA)
"""Markers at which the header of a JPEG file must be complete: end of image and start of scan."""
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_BROKEN = "has a broken header"


def image_size(raw: bytes) -> tuple[int, int]:
    """Return width and height of the image in a file, without reading its pixels.

    Raises:
        ValueError: the file's format isn't known, its header is broken or incomplete, or it has too
            much metadata.
    """
    try:
        if raw.startswith(_PNG):
            return _png_size(raw)
        if raw.startswith(_JPEG):
            return _jpeg_size(raw)
        if raw.startswith(_GIF):
            return _gif_size(raw)
        if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
            return _webp_size(raw)
    except (IndexError, struct.error):
        raise ValueError(f"{_BROKEN}: the file ends there") from None
    raise ValueError("isn't a complete image of a known format (PNG, JPEG, GIF, WEBP)")


def _png_size(raw: bytes) -> tuple[int, int]:
    place = len(_PNG)
    for _ in range(MAX_BLOCKS):
        length, kind = unpack_from(">I4s", raw, place)
        if (kind == b"IHDR") != (place == len(_PNG)):
            raise ValueError(_BROKEN)
        if kind == b"IDAT":
            width, height = unpack_from(">II", raw, len(_PNG) + 8)
            return width, height
        place += 12 + length
    raise _too_much(MAX_BLOCKS)


def _jpeg_size(raw: bytes) -> tuple[int, int]:
    place, size = 2, None
    for _ in range(MAX_BLOCKS):
        begin, marker = raw[place], raw[place + 1]
        if begin != 0xFF or (marker in _PIXELS and size is None):
            raise ValueError(_BROKEN)
        if marker in _PIXELS and size:
            return size
        if marker == 0xFF:  # padding
            place += 1
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            (length,) = unpack_from(">H", raw, place + 2)
            if length < 2 or (marker in _FRAMES and size):
                raise ValueError(_BROKEN)
            if marker in _FRAMES:
                height, width = unpack_from(">HH", raw, place + 5)
                size = width, height
            place += 2 + length
    raise _too_much(MAX_BLOCKS)


def _gif_size(raw: bytes) -> tuple[int, int]:
    width, height, flags = unpack_from("<HHB", raw, 6)
    place = 13 + _table_bytes(flags)
    for _ in range(MAX_GIF_BLOCKS):
        kind = raw[place]
        if kind == 0x2C:  # the first frame, which may be larger than the screen
            x, y, of_frame, high = unpack_from("<HHHH", raw, place + 1)
            return max(width, x + of_frame), max(height, y + high)
        if kind != 0x21:
            raise ValueError(_BROKEN)
        place = _after_extension(raw, place + 2)
    raise _too_much(MAX_GIF_BLOCKS)


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_extension(raw: bytes, place: int) -> int:
    for _ in range(MAX_GIF_BLOCKS):
        length = raw[place]
        place += 1 + length
        if not length:
            return place
    raise _too_much(MAX_GIF_BLOCKS)


def _webp_size(raw: bytes) -> tuple[int, int]:
    kind = raw[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = unpack_from("<HBHB", raw, 24)
        return (low_width | high_width << 16) + 1, (low_height | high_height << 16) + 1
    if kind == b"VP8L":
        signature, bits = unpack_from("<BI", raw, 20)
        if signature == 0x2F:
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and raw[23:26] == b"\x9d\x01\x2a":
        width, height = unpack_from("<HH", raw, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(_BROKEN)


def _too_much(most: int) -> ValueError:
    return ValueError(f"has more than {most} blocks of metadata in front of its pixels")
