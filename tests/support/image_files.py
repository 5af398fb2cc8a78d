"""Small image files, whole and broken, and their data URLs."""

import struct
import zlib
from base64 import b64encode
from io import BytesIO

from PIL import Image

RED, BLUE = (220, 20, 20), (20, 20, 220)


def image_file(
    kind: str = "PNG", size: tuple[int, int] = (8, 6), colour: tuple[int, int, int] = RED
) -> bytes:
    """Return a file with an image of one colour."""
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def data_url(file: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(file).decode()}"


def png_header(width: int, height: int) -> bytes:
    """Return the start of a PNG file that announces a size, without its pixels."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + fields + struct.pack(">I", zlib.crc32(fields))
    pixels = b"IDAT" + zlib.compress(b"")
    chunk = struct.pack(">I", len(pixels) - 4) + pixels + struct.pack(">I", zlib.crc32(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + chunk
