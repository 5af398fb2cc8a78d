"""Images of chats: their bounds, and their places in the messages of a job."""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_IMAGES = 16
"""Maximum number of images of one request."""
MAX_PIXELS = 64_000_000
"""Maximum number of pixels of all images of one request."""
MAX_SIDE = 16_384
"""Maximum width and height of an image, in pixels."""
PLACE: Mapping[str, str] = {"type": "image"}
"""Part that marks the place of an image in a message's content. The images of a job are in the
order of these places."""

Content = str | Sequence[Mapping[str, Any]]
"""Content of a message in a job: text, or a list of text parts and `PLACE` parts."""


def text_of(content: Content) -> str:
    """Return the text in a message's content, without its images."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")
