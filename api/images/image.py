"""Checks images by their headers, without decoding their pixels. Pure."""

import binascii
import re
from dataclasses import dataclass

from api.images.headers import image_size
from shared.protocol.images import MAX_PIXELS, MAX_SIDE

PIXELS_PER_TOKEN = 28 * 28
"""Estimated number of pixels that one prompt token represents, as in Qwen-VL's models."""
MAX_TOKENS = 4096
"""Maximum of the estimated number of tokens of an image."""
_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose header is valid."""

    data: str
    """The image's file in base64."""
    num_pixels: int

    @property
    def num_tokens(self) -> int:
        """Estimated number of tokens. Only the worker knows the model's own number."""
        return min(1 + self.num_pixels // PIXELS_PER_TOKEN, MAX_TOKENS)


def read_image(url: str) -> Image:
    """Return the image in a data URL.

    Raises:
        ValueError: the URL is malformed, or the image's format or size isn't allowed.
    """
    head = _DATA_URL.match(url)
    if head is None:
        raise ValueError("must have an http or https URL, or data:image/TYPE;base64, and its file")
    data = url[head.end() :]
    try:
        raw = binascii.a2b_base64(data.encode(), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"isn't valid base64: {error}") from None
    width, height = image_size(raw)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ValueError(
            f"has {width} x {height} pixels; at most {MAX_SIDE} on a side and {MAX_PIXELS} in all "
            "are allowed"
        )
    return Image(data, width * height)
