"""Finds the URLs of images in the bodies of chat requests, of all three APIs. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_REMOTE = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class UrlPlace:
    """A place in a body that has a URL."""

    path: str
    """Path of the field, for messages."""
    holder: dict[str, Any]
    """Object that has the field."""
    field: str

    @property
    def url(self) -> str:
        """The URL."""
        return str(self.holder[self.field])


def remote_images(body: Mapping[str, Any]) -> list[UrlPlace]:
    """Return the places of images that must be fetched by HTTP."""
    fields = ("messages", "input")
    parts = (part for name in fields for part in _parts(body.get(name), name))
    places = (place for path, part in parts if (place := _place(part, path)))
    return [place for place in places if place.url[:8].lower().startswith(_REMOTE)]


def _parts(items: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects in a list, and in their content and output, with their paths."""
    if not isinstance(items, list):
        return
    for index, item in enumerate(items):
        if isinstance(item, dict):
            yield f"{path}[{index}]", item
            for name in ("content", "output"):
                yield from _parts(item.get(name), f"{path}[{index}].{name}")


def _place(part: dict[str, Any], path: str) -> UrlPlace | None:
    match part:
        case {"type": "image_url", "image_url": {"url": str()}}:
            return UrlPlace(f"{path}.image_url.url", part["image_url"], "url")
        case {"type": "image_url" | "input_image", "image_url": str()}:
            return UrlPlace(f"{path}.image_url", part, "image_url")
        case {"type": "image", "source": {"type": "url", "url": str()}}:
            return UrlPlace(f"{path}.source.url", part["source"], "url")
    return None
