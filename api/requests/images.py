"""Reads the images in the messages of a chat request. Pure."""

from collections.abc import Iterator, Sequence

from api.images.image import Image, read_image
from api.schema.chat_messages import ImagePart, Message
from shared.errors import ErrorCode, failed, invalid_param, invalid_value
from shared.protocol.images import MAX_IMAGES, MAX_PIXELS


def read_images(messages: Sequence[Message], *, takes_images: bool) -> list[Image]:
    """Return the images of a chat, in order.

    Raises:
        JobFailed: an image is invalid, the images are too many or too large, or the messages have
            images and `takes_images` is false.
    """
    images: list[Image] = []
    num_pixels = 0
    for path, url in _places(messages):
        if not takes_images:
            message = f"{path}: this model reads no images; serve a multimodal base model with "
            message += "--engine vllm, or send text"
            raise failed(ErrorCode.UNSUPPORTED_PARAMETER, message, path)
        number = len(images) + 1
        if number > MAX_IMAGES:
            raise invalid_value(f"{path}: a request can have at most {MAX_IMAGES} images", path)
        try:
            images.append(read_image(url))
        except ValueError as error:
            raise invalid_value(f"{path}: image {number} {error}", path) from None
        num_pixels += images[-1].num_pixels
        if num_pixels > MAX_PIXELS:
            message = f"{path}: images 1 to {number} have {num_pixels} pixels together; at most "
            raise invalid_value(f"{message}{MAX_PIXELS} are allowed", path)
    return images


def check_copies(images: Sequence[Image], num_answers: int) -> None:
    """Check that a request's images are within the bounds if each answer gets its own copy.

    Raises:
        JobFailed: the bounds for a request's images are exceeded.
    """
    num_images = len(images) * num_answers
    num_pixels = sum(image.num_pixels for image in images) * num_answers
    if num_answers > 1 and (num_images > MAX_IMAGES or num_pixels > MAX_PIXELS):
        raise invalid_param(
            "n",
            f"asks for {num_answers} answers to {num_images} images with {num_pixels} pixels in "
            f"all; at most {MAX_IMAGES} images and {MAX_PIXELS} pixels are allowed",
        )


def _places(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Yield the path and the URL of each image."""
    for i, message in enumerate(messages):
        for j, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                yield f"messages[{i}].content[{j}].image_url.url", part.image_url.url
