"""Finds the URLs of images in requests to chat completions, responses and messages. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_REMOTE = ("http://", "https://")
Keys = tuple[str | int, ...]
"""Path of a value in a body: names of fields and indexes in lists."""


@dataclass(frozen=True, slots=True)
class UrlPlace:
    """A place in a body at which there is an image's URL."""

    keys: Keys
    url: str

    @property
    def path(self) -> str:
        """Path of the field with the URL, as error messages show it."""
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys)[1:]


def remote_images(body: Mapping[str, Any]) -> list[UrlPlace]:
    """Return where in the body there are URLs of images that must be fetched over HTTP."""
    parts = (part for name in ("messages", "input") for part in _parts(body.get(name), (name,)))
    places = (place for keys, part in parts if (place := _place(part, keys)))
    return [place for place in places if place.url[:8].lower().startswith(_REMOTE)]


def with_url(body: Any, keys: Keys, url: str) -> Any:
    """Return a copy of `body` with `url` at the place `keys`. It shares all other values."""
    changed = body.copy()
    changed[keys[0]] = with_url(body[keys[0]], keys[1:], url) if len(keys) > 1 else url
    return changed


def _parts(items: Any, keys: Keys) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Yield the objects in a list, and the objects in their fields `content` and `output`.

    Each object is yielded with its place in the body.
    """
    if not isinstance(items, list):
        return
    for index, item in enumerate(items):
        if isinstance(item, dict):
            yield (*keys, index), item
            for name in ("content", "output"):
                yield from _parts(item.get(name), (*keys, index, name))


def _place(part: dict[str, Any], keys: Keys) -> UrlPlace | None:
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return UrlPlace((*keys, "image_url", "url"), url)
        case {"type": "image_url" | "input_image", "image_url": str(url)}:
            return UrlPlace((*keys, "image_url"), url)
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return UrlPlace((*keys, "source", "url"), url)
    return None
