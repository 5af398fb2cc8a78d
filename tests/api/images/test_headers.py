"""Sizes in headers of images, and files whose metadata would take long to read."""

import struct
import zlib
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import image_file, png_header
from PIL import Image

from api.images.headers import MAX_BLOCKS, MAX_GIF_BLOCKS, image_size

FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True, "comment": b"c" * 70, "exif": b"Exif\0\0" + b"x" * 99}),
    ("GIF", {"comment": b"x" * 999}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"icc_profile": b"x" * 99}),
]


def saved(kind: str, size: tuple[int, int], **options: Any) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(file, kind, **options)
    return file.getvalue()


def found(file: bytes) -> tuple[int, int] | None:
    try:
        return image_size(file)
    except ValueError:
        return None


@given(
    st.sampled_from(range(len(FORMATS))),
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.floats(0, 1),
)
def test_the_size_is_pillows_and_a_part_of_a_file_has_it_or_is_refused(
    number: int, size: tuple[int, int], share: float
) -> None:
    kind, options = FORMATS[number]
    file = saved(kind, size, **options)
    assert image_size(file) == size
    assert found(file[: int(share * len(file))]) in (size, None)


@given(st.binary(max_size=300), st.sampled_from([0, 2, 6, 8, 12, 20]))
def test_any_bytes_have_a_size_or_are_refused(noise: bytes, place: int) -> None:
    for kind, _ in FORMATS:
        file = image_file(kind)
        found(file[:place] + noise + file[place:])


def test_a_frame_may_be_larger_than_the_screen_of_a_gif() -> None:
    frame = b"\x2c" + struct.pack("<HHHHB", 10, 20, 300, 400, 0)
    assert image_size(b"GIF89a" + struct.pack("<HHBBB", 5, 6, 0, 0, 0) + frame) == (310, 420)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = png_header(8, 8)
PROFILE = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 20)))
SLOW = {
    "segments of Exif": b"\xff\xd8" + (b"\xff\xe1\0\x14Exif\0\0" + bytes(12)) * 100_000,
    "padding of a JPEG": b"\xff\xd8" + b"\xff" * 1_000_000,
    "markers of a JPEG": b"\xff\xd8" + b"\xff\xd0" * 500_000,
    "profiles of a PNG": PNG[:33] + PROFILE * 1000 + PNG[33:],
    "comments of a GIF": image_file("GIF")[:13] + b"\x21\xfe\x01c\0" * 300_000,
    "a long comment of a GIF": image_file("GIF")[:13] + b"\x21\xfe" + b"\x01c" * 300_000,
}


@pytest.mark.parametrize("name", SLOW)
def test_much_metadata_is_refused(name: str) -> None:
    most = MAX_GIF_BLOCKS if "GIF" in name else MAX_BLOCKS
    # The global table of colours of the GIF is replaced by the blocks.
    file = SLOW[name][:10] + b"\0" + SLOW[name][11:] if "GIF" in name else SLOW[name]
    with pytest.raises(ValueError, match=f"more than {most} blocks of metadata"):
        image_size(file)


@pytest.mark.parametrize(
    "file",
    [
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe1\0\x01",
        b"\xff\xd8\xff\xc0\0\x0b\x08\0\x09\0\x09\0" + bytes(3) + b"\xff\xc0" * 2 + bytes(20),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""),
        b"GIF89a" + bytes(7) + b"\x3b",
        b"RIFF\0\0\0\0WEBPVP8 " + bytes(20),
        b"RIFF\0\0\0\0WEBPVP8L" + bytes(20),
    ],
)
def test_a_broken_header_is_refused(file: bytes) -> None:
    with pytest.raises(ValueError, match="has a broken header"):
        image_size(file)
