"""The routes of an app, for tests that walk all of them."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute


def routes(app: FastAPI) -> list[APIRoute]:
    """Return all routes, those of included routers too. Mounted apps would have no check."""
    found = list(_flattened(app.routes))
    assert len(found) > 50
    assert all(isinstance(route, APIRoute) for route in found)
    return found


def example_path(template: str) -> str:
    """Return a path that matches a route's template."""
    return template.replace("{", "").replace("}", "").replace(":path", "")


def _flattened(found: Iterable[Any]) -> Iterator[Any]:
    for route in found:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _flattened(included.routes)
